//! Visits JSON objects member by member on top of `serde_json`. Repeated members and wrong types are reported as
//! faults.

use std::borrow::Cow;
use std::fmt;

use runtime::http::without_byte_order_mark;
use runtime::problem::{Faults, member_pointer};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Receives an object's members in document order.
pub(super) trait ObjectVisitor<'de> {
    /// Receives one member. Must read exactly one value from `map`.
    ///
    /// # Errors
    /// The error of `map`.
    fn member<M: MapAccess<'de>>(
        &mut self,
        name: MemberName<'de>,
        map: &mut M,
    ) -> Result<(), M::Error>;

    /// Is called instead when the value is not an object but of type `found`.
    fn not_an_object(&mut self, found: &'static str);
}

/// Deserializes one value and passes its members to an [`ObjectVisitor`].
pub(super) struct ObjectSeed<'m, T>(pub &'m mut T);

impl<'de, T: ObjectVisitor<'de>> DeserializeSeed<'de> for ObjectSeed<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: ObjectVisitor<'de>> Visitor<'de> for ObjectSeed<'_, T> {
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
pub(super) struct MemberName<'a>(pub Cow<'a, str>);

impl<'de> Deserialize<'de> for MemberName<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;

        impl<'de> Visitor<'de> for NameVisitor {
            type Value = MemberName<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a member name")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<MemberName<'de>, E> {
                Ok(MemberName(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<MemberName<'de>, E> {
                Ok(MemberName(Cow::Owned(text.to_owned())))
            }
        }

        deserializer.deserialize_str(NameVisitor)
    }
}

/// Names a value's JSON type, with its article.
pub(super) fn json_type(value: &RawValue) -> &'static str {
    match value.get().as_bytes().first() {
        Some(b'"') => "a string",
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

/// Returns the text of a JSON string.
///
/// # Errors
/// The fault's detail, when the value is not a valid string.
pub(super) fn parse_string(value: &RawValue) -> Result<Cow<'_, str>, Cow<'static, str>> {
    let text = value.get();
    let Some(inner) = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) else {
        return Err(format!("must be a string, not {}", json_type(value)).into());
    };
    if !inner.contains('\\') {
        return Ok(Cow::Borrowed(inner));
    }
    // Deserializing the raw value checked the form of its escapes, but not their surrogate pairs.
    serde_json::from_str(text)
        .map(Cow::Owned)
        .map_err(|_| "must be Unicode, without unpaired surrogates".into())
}

/// Collects the members of an object with a fixed set of names.
struct KnownMembers<'n, 'f, 'de, const N: usize> {
    pointer: &'n str,
    names: [&'static str; N],
    values: [Option<&'de RawValue>; N],
    faults: &'f mut Faults,
}

impl<'de, const N: usize> ObjectVisitor<'de> for KnownMembers<'_, '_, 'de, N> {
    fn member<M: MapAccess<'de>>(
        &mut self,
        name: MemberName<'de>,
        map: &mut M,
    ) -> Result<(), M::Error> {
        let value = map.next_value()?;
        let index = self.names.iter().position(|known| *known == name.0);
        match index.and_then(|index| self.values.get_mut(index)) {
            None => unknown_member(self.faults, self.pointer, &name),
            Some(Some(_)) => repeated_member(self.faults, self.pointer, &name),
            Some(slot) => *slot = Some(value),
        }
        Ok(())
    }

    fn not_an_object(&mut self, found: &'static str) {
        self.faults.malformed(self.pointer, format!("must be an object, not {found}"));
    }
}

/// Parses an object whose members must have one of these names. The values are in the order of the names.
///
/// # Errors
/// When the body is not JSON.
pub(super) fn parse_known_members<'de, const N: usize>(
    body: &'de [u8],
    pointer: &str,
    names: [&'static str; N],
    faults: &mut Faults,
) -> Result<[Option<&'de RawValue>; N], JsonError> {
    let mut members = KnownMembers { pointer, names, values: [None; N], faults };
    parse_whole(body, ObjectSeed(&mut members))?;
    Ok(members.values)
}

/// Collects the members of an object whose names are data.
struct AnyMembers<'n, 'f, 'de> {
    pointer: &'n str,
    max: usize,
    values: Vec<(Cow<'de, str>, &'de RawValue)>,
    faults: &'f mut Faults,
}

impl<'de> ObjectVisitor<'de> for AnyMembers<'_, '_, 'de> {
    fn member<M: MapAccess<'de>>(
        &mut self,
        name: MemberName<'de>,
        map: &mut M,
    ) -> Result<(), M::Error> {
        let value = map.next_value()?;
        if self.values.iter().any(|(known, _)| *known == name.0) {
            repeated_member(self.faults, self.pointer, &name);
        } else if self.values.len() < self.max {
            self.values.push((name.0, value));
        } else if !self.faults.covers(self.pointer) {
            let detail = format!("must have at most {} members", self.max);
            self.faults.invalid(self.pointer, detail);
        }
        Ok(())
    }

    fn not_an_object(&mut self, found: &'static str) {
        self.faults.malformed(self.pointer, format!("must be an object, not {found}"));
    }
}

/// Parses an object of at most `max` members with any names; each name is there once. The members are in document
/// order.
///
/// # Errors
/// When the body is not JSON.
pub(super) fn parse_any_members<'de>(
    body: &'de [u8],
    pointer: &str,
    max: usize,
    faults: &mut Faults,
) -> Result<Vec<(Cow<'de, str>, &'de RawValue)>, JsonError> {
    let mut members = AnyMembers { pointer, max, values: Vec::new(), faults };
    parse_whole(body, ObjectSeed(&mut members))?;
    Ok(members.values)
}

/// Why a body cannot be parsed.
pub(super) enum JsonError {
    /// The body is not UTF-8.
    NotUtf8(std::str::Utf8Error),
    /// The body is not JSON, or a value of another type.
    NotJson(serde_json::Error),
}

impl From<serde_json::Error> for JsonError {
    fn from(error: serde_json::Error) -> Self {
        Self::NotJson(error)
    }
}

impl JsonError {
    /// Describes the error. `expected` names the expected type.
    pub fn detail(&self, expected: &str) -> String {
        match self {
            Self::NotUtf8(error) => format!("is not UTF-8: {error}"),
            Self::NotJson(error) if error.is_data() => format!("must be {expected}"),
            Self::NotJson(error) => format!("is not JSON: {error}"),
        }
    }
}

/// Parses a body that is exactly one value, after an optional byte order mark. UTF-8 is checked once for the whole body,
/// not string by string.
///
/// # Errors
/// When the body is not UTF-8 or not one value that `seed` accepts.
pub(super) fn parse_whole<'de, S: DeserializeSeed<'de>>(
    body: &'de [u8],
    seed: S,
) -> Result<S::Value, JsonError> {
    let text = std::str::from_utf8(without_byte_order_mark(body)).map_err(JsonError::NotUtf8)?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = seed.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

pub(super) fn unknown_member(faults: &mut Faults, parent: &str, name: &MemberName<'_>) {
    faults.malformed(member_pointer(parent, &name.0), "is not a known member");
}

pub(super) fn repeated_member(faults: &mut Faults, parent: &str, name: &MemberName<'_>) {
    faults.malformed(member_pointer(parent, &name.0), "appears more than once");
}
