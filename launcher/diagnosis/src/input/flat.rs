//! `Flat`: a serializer that writes the values of a struct into a flat list, each under its path. Lists are left out.
//!
//! A JSON value of the struct would contain all of its lists and objects, which took half of the time of a comparison.

use serde::Serialize;
use serde::ser::{Error as _, Impossible, SerializeMap, SerializeSeq, SerializeStruct, Serializer};
use serde_json::{Error, Value};

use crate::input::fields::Fields;

/// Writes the value at `path` into `fields`.
pub(super) struct Flat<'a> {
    pub(super) fields: &'a mut Fields,
    pub(super) path: &'a mut String,
}

impl Flat<'_> {
    fn put(self, value: Value) -> Result<(), Error> {
        // A number that is not finite has no value in JSON.
        if !value.is_null() {
            self.fields.insert(self.path.clone(), value);
        }
        Ok(())
    }

    fn put_member(&mut self, name: &str, value: &(impl Serialize + ?Sized)) -> Result<(), Error> {
        let length = self.path.len();
        self.path.push('.');
        self.path.push_str(name);
        let written = value.serialize(Flat { fields: self.fields, path: self.path });
        self.path.truncate(length);
        written
    }
}

/// An object. `name` is the name of the next entry of a map.
pub(super) struct Members<'a> {
    of: Flat<'a>,
    name: String,
}

/// A list, which has no fields.
pub(super) struct List;

macro_rules! values {
    ($($method:ident $kind:ty),*) => {
        $(fn $method(self, value: $kind) -> Result<(), Error> {
            self.put(value.into())
        })*
    };
}

impl<'a> Serializer for Flat<'a> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = List;
    type SerializeTuple = Impossible<(), Error>;
    type SerializeTupleStruct = Impossible<(), Error>;
    type SerializeTupleVariant = Impossible<(), Error>;
    type SerializeMap = Members<'a>;
    type SerializeStruct = Members<'a>;
    type SerializeStructVariant = Impossible<(), Error>;

    values! {
        serialize_bool bool, serialize_i8 i8, serialize_i16 i16, serialize_i32 i32, serialize_i64 i64, serialize_u8 u8,
        serialize_u16 u16, serialize_u32 u32, serialize_u64 u64, serialize_f32 f32, serialize_f64 f64, serialize_str &str
    }

    fn serialize_char(self, value: char) -> Result<(), Error> {
        self.put(value.to_string().into())
    }

    fn serialize_bytes(self, _: &[u8]) -> Result<(), Error> {
        Ok(())
    }

    fn serialize_none(self) -> Result<(), Error> {
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Error> {
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Error> {
        Ok(())
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), Error> {
        self.put(variant.into())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        mut self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        self.put_member(variant, value)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<List, Error> {
        Ok(List)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, Error> {
        Err(Error::custom(NO_FACT))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeTupleStruct, Error> {
        Err(Error::custom(NO_FACT))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Error> {
        Err(Error::custom(NO_FACT))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Members<'a>, Error> {
        Ok(Members { of: self, name: String::new() })
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Members<'a>, Error> {
        Ok(Members { of: self, name: String::new() })
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Error> {
        Err(Error::custom(NO_FACT))
    }
}

/// The error for a type that no fact has.
const NO_FACT: &str = "facts have no tuples, and no variants with fields";

impl SerializeSeq for List {
    type Ok = ();
    type Error = Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, _: &T) -> Result<(), Error> {
        Ok(())
    }

    fn end(self) -> Result<(), Error> {
        Ok(())
    }
}

impl SerializeStruct for Members<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Error> {
        self.of.put_member(name, value)
    }

    fn end(self) -> Result<(), Error> {
        Ok(())
    }
}

impl SerializeMap for Members<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, name: &T) -> Result<(), Error> {
        self.name = match serde_json::to_value(name)? {
            Value::String(name) => name,
            name => name.to_string(),
        };
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        let name = std::mem::take(&mut self.name);
        self.of.put_member(&name, value)
    }

    fn end(self) -> Result<(), Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    #[derive(Serialize)]
    enum Mode {
        On,
    }

    #[derive(Serialize)]
    struct Inner {
        mode: Mode,
        absent: Option<u8>,
        share: f64,
        names: BTreeMap<u8, &'static str>,
    }

    #[derive(Serialize)]
    struct Outer {
        inner: Option<Inner>,
        list: Vec<Inner>,
        signed: i64,
        not_a_number: f64,
    }

    #[test]
    fn values_have_their_paths_and_lists_are_left_out() {
        let inner = || Inner { mode: Mode::On, absent: None, share: 0.5, names: BTreeMap::from([(7, "seven")]) };
        let outer = Outer { inner: Some(inner()), list: vec![inner()], signed: -1, not_a_number: f64::NAN };
        let mut fields = Fields::new();
        let mut path = "section".to_owned();
        outer.serialize(Flat { fields: &mut fields, path: &mut path }).expect("facts");
        let expected = json!({
            "section.inner.mode": "On", "section.inner.share": 0.5, "section.inner.names.7": "seven", "section.signed": -1,
        });
        assert_eq!((json!(fields), path.as_str()), (expected, "section"));
    }
}
