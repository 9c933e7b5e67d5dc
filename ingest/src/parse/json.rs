//! JSON objects member by member, with repeated members seen and everything of a wrong type named; on `serde_json`,
//! which reads the bytes.

use std::borrow::Cow;
use std::fmt;

use runtime::problem::{Faults, member_pointer};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Takes an object's members in the order in which they come.
pub(super) trait Members<'de> {
    /// Takes one member; must take exactly one value from `map`.
    ///
    /// # Errors
    /// What `map` says.
    fn member<M: MapAccess<'de>>(&mut self, name: Name<'de>, map: &mut M) -> Result<(), M::Error>;

    /// The value is not an object, but this.
    fn not_an_object(&mut self, found: &'static str);
}

/// Reads one value and hands its members over.
pub(super) struct ReadObject<'m, T>(pub &'m mut T);

impl<'de, T: Members<'de>> DeserializeSeed<'de> for ReadObject<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Members<'de>> Visitor<'de> for ReadObject<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        while let Some(name) = map.next_key()? {
            self.0.member(name, &mut map)?;
        }
        Ok(())
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<(), S::Error> {
        self.0.not_an_object("an array");
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        self.0.not_an_object("a string");
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        self.0.not_an_object("a boolean");
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        self.0.not_an_object("a number");
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        self.0.not_an_object("a number");
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        self.0.not_an_object("a number");
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.0.not_an_object("null");
        Ok(())
    }
}

/// A member's name, borrowed from the body unless it has escapes.
pub(super) struct Name<'a>(pub Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;

        impl<'de> Visitor<'de> for NameVisitor {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }
        }

        deserializer.deserialize_str(NameVisitor)
    }
}

/// What a value is, for the one who sent it.
pub(super) fn kind_of(value: &RawValue) -> &'static str {
    match value.get().as_bytes().first() {
        Some(b'"') => "a string",
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

/// The text of a string; otherwise what is wrong.
pub(super) fn string(value: &RawValue) -> Result<Cow<'_, str>, Cow<'static, str>> {
    let text = value.get();
    let Some(inner) = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) else {
        return Err(format!("must be a string, not {}", kind_of(value)).into());
    };
    if !inner.contains('\\') {
        return Ok(Cow::Borrowed(inner));
    }
    // The form of the escapes was checked when the value was read; half a surrogate pair was not.
    serde_json::from_str(text)
        .map(Cow::Owned)
        .map_err(|_| "must be Unicode, without half of a surrogate pair".into())
}

/// The members of an object that may have these names and no other.
pub(super) struct Known<'n, 'f, 'de, const N: usize> {
    pointer: &'n str,
    names: [&'static str; N],
    values: [Option<&'de RawValue>; N],
    faults: &'f mut Faults,
}

impl<'de, const N: usize> Members<'de> for Known<'_, '_, 'de, N> {
    fn member<M: MapAccess<'de>>(&mut self, name: Name<'de>, map: &mut M) -> Result<(), M::Error> {
        let value = map.next_value()?;
        let place = self.names.iter().position(|known| *known == name.0);
        match place.and_then(|place| self.values.get_mut(place)) {
            None => unknown_member(self.faults, self.pointer, &name),
            Some(Some(_)) => repeated_member(self.faults, self.pointer, &name),
            Some(free) => *free = Some(value),
        }
        Ok(())
    }

    fn not_an_object(&mut self, found: &'static str) {
        self.faults.malformed(self.pointer, format!("must be an object, not {found}"));
    }
}

/// Reads an object whose members may have these names and no other; the values come in the names' order.
///
/// # Errors
/// When the body is not JSON.
pub(super) fn known_members<'de, const N: usize>(
    body: &'de [u8],
    pointer: &str,
    names: [&'static str; N],
    faults: &mut Faults,
) -> Result<[Option<&'de RawValue>; N], Unreadable> {
    let mut known = Known { pointer, names, values: [None; N], faults };
    whole(body, ReadObject(&mut known))?;
    Ok(known.values)
}

/// Why a body cannot be read.
pub(super) enum Unreadable {
    /// It is no text.
    NotUtf8(std::str::Utf8Error),
    /// It is no JSON, or no value of the type that is read.
    NotJson(serde_json::Error),
}

impl From<serde_json::Error> for Unreadable {
    fn from(error: serde_json::Error) -> Self {
        Self::NotJson(error)
    }
}

impl Unreadable {
    /// What is told of it; `wanted` is said of JSON of another type.
    pub fn detail(&self, wanted: &str) -> String {
        match self {
            Self::NotUtf8(error) => format!("is not UTF-8: {error}"),
            Self::NotJson(error) if error.is_data() => format!("must be {wanted}"),
            Self::NotJson(error) => format!("is not JSON: {error}"),
        }
    }
}

/// Reads one value that is all of a body. That the body is text is checked once, and not string by string.
///
/// # Errors
/// When it is not.
pub(super) fn whole<'de, S: DeserializeSeed<'de>>(
    body: &'de [u8],
    seed: S,
) -> Result<S::Value, Unreadable> {
    let text = std::str::from_utf8(body).map_err(Unreadable::NotUtf8)?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = seed.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

pub(super) fn unknown_member(faults: &mut Faults, parent: &str, name: &Name<'_>) {
    faults.malformed(member_pointer(parent, &name.0), "is not a member that is known here");
}

pub(super) fn repeated_member(faults: &mut Faults, parent: &str, name: &Name<'_>) {
    faults.malformed(member_pointer(parent, &name.0), "is there more than once");
}
