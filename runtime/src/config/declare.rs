//! The `settings!` macro: the one place where each setting is declared.

/// Declares a struct of settings, one field per key.
///
/// Each field names its key, default, unit and parser once; the field's doc comment is also the key's text in the
/// configuration reference. The struct gets `KEYS`, the list for the reference, and `read`.
///
/// ```
/// use runtime::config::{parse, settings};
///
/// settings! {
///     /// Limits of a server.
///     pub struct ServerConfig {
///         /// Port to listen on.
///         pub port: u16 = "server.port", default "80", unit "port", parse parse::u16;
///         /// Name to report; has no default.
///         pub name: String = "server.name", required, unit "", parse parse::non_empty;
///     }
/// }
/// assert_eq!(ServerConfig::KEYS[0].doc, "Port to listen on.");
/// ```
///
/// A key whose value must never be printed ends with `, secret`.
#[macro_export]
macro_rules! settings {
    (
        $(#[$attribute:meta])*
        $vis:vis struct $name:ident {$(
            $(#[doc = $doc:literal])+
            $field_vis:vis $field:ident: $type:ty = $key:literal, $presence:ident $($default:literal)?,
                unit $unit:literal, parse $parse:path $(, $secret:ident)?;
        )+}
    ) => {
        $(#[$attribute])*
        $vis struct $name {$(
            $(#[doc = $doc])+
            $field_vis $field: $type,
        )+}

        // A constant per field, so that the reference and the reader take the same declaration.
        #[allow(non_upper_case_globals)]
        impl $name {
            $(const $field: $crate::config::Key<$type> = $crate::config::Key::new(
                $key,
                $crate::settings!(@default $presence $($default)?),
                $unit,
                concat!($($doc),+).trim_ascii(),
                $parse,
            )$(.$secret())?;)+

            /// The keys of these settings, for the configuration reference.
            pub const KEYS: &'static [$crate::config::KeyDoc] = &[$(Self::$field.describe()),+];

            /// Reads the settings. `None` if the reader recorded a fault.
            pub fn read(reader: &mut $crate::config::Reader<'_>) -> Option<Self> {
                // Every key is read before the first fault returns, so that all faults are reported together.
                $(let $field = reader.read(&Self::$field);)+
                Some(Self { $($field: $field?),+ })
            }
        }
    };
    (@default default $default:literal) => { Some($default) };
    (@default required) => { None };
}
