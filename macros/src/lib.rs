//! The attribute macros `facts` and `omit` for structs that are written as JSON documents.
//!
//! `omit(Option, Vec, notes, !gpus)` is a list of types and of field names. A field with such a type or name is omitted
//! from the JSON if it has no value: `None`, an empty text, list or map, `false` or zero. `!` excludes a field.

use proc_macro::TokenStream;
use quote::ToTokens;
use syn::parse::{Parse, ParseStream, Parser};
use syn::punctuated::Punctuated;
use syn::{Data, DeriveInput, Error, Field, Ident, Result, Token, Type, parenthesized, parse_quote};

/// The attribute of all structs of facts: `#[facts]`, or `#[facts(omit(Option, Vec))]`.
///
/// The attribute adds the derives, the JSON Schema (with the feature `schema`) and `serde(default)`, because fields are
/// missing in documents of older probes.
#[proc_macro_attribute]
pub fn facts(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let omitted = |input: ParseStream<'_>| {
        if input.is_empty() {
            return Ok(Punctuated::new());
        }
        let word: Ident = input.parse()?;
        let list;
        parenthesized!(list in input);
        if word == "omit" { names(&list) } else { Err(Error::new(word.span(), "expected `omit`")) }
    };
    let with_derives = || {
        let mut item: DeriveInput = syn::parse(item)?;
        let mut attributes = vec![
            parse_quote!(#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]),
            parse_quote!(#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]),
            parse_quote!(#[serde(default)]),
        ];
        attributes.append(&mut item.attrs);
        item.attrs = attributes;
        leave_out(&omitted.parse(arguments)?, item)
    };
    output(with_derives())
}

/// Omits fields without a value from the JSON. The attribute must be above the `derive` of the struct.
#[proc_macro_attribute]
pub fn omit(arguments: TokenStream, item: TokenStream) -> TokenStream {
    output(names.parse(arguments).and_then(|names| leave_out(&names, syn::parse(item)?)))
}

fn output(item: Result<DeriveInput>) -> TokenStream {
    item.map_or_else(Error::into_compile_error, ToTokens::into_token_stream).into()
}

/// An entry of the list: a type, a field, or `!` and a field that is always written.
struct Name {
    except: bool,
    ident: Ident,
}

impl Parse for Name {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let except = input.parse::<Option<Token![!]>>()?.is_some();
        Ok(Self { except, ident: input.parse()? })
    }
}

type Names = Punctuated<Name, Token![,]>;

fn names(input: ParseStream<'_>) -> Result<Names> {
    Names::parse_terminated(input)
}

fn leave_out(names: &Names, mut item: DeriveInput) -> Result<DeriveInput> {
    if !item.attrs.iter().any(|attribute| attribute.path().is_ident("derive")) {
        return Err(Error::new(item.ident.span(), "the attribute must be above `derive`"));
    }
    let Data::Struct(data) = &mut item.data else {
        return Err(Error::new(item.ident.span(), "only a struct has fields"));
    };
    for name in names {
        if !data.fields.iter().any(|field| name.is_of(field)) {
            return Err(Error::new(name.ident.span(), "no field has this type or name"));
        }
    }
    for field in &mut data.fields {
        let excepted = names.iter().any(|name| name.except && name.is_of(field));
        if !excepted && names.iter().any(|name| name.is_of(field)) {
            let test = test_of(type_name(field).map(ToString::to_string).as_deref());
            field.attrs.push(parse_quote!(#[serde(skip_serializing_if = #test)]));
        }
    }
    Ok(item)
}

impl Name {
    fn is_of(&self, field: &Field) -> bool {
        field.ident.as_ref() == Some(&self.ident) || !self.except && type_name(field) == Some(&self.ident)
    }
}

/// Returns the name of a field's type, without the path and the arguments of the type.
fn type_name(field: &Field) -> Option<&Ident> {
    let Type::Path(path) = &field.ty else { return None };
    path.path.segments.last().map(|segment| &segment.ident)
}

/// Returns the path of the function that checks whether a value of this type is empty. The struct's module must import
/// `is_zero`.
fn test_of(type_name: Option<&str>) -> &'static str {
    match type_name {
        Some("Option") => "Option::is_none",
        Some("Vec") => "Vec::is_empty",
        Some("BTreeMap") => "std::collections::BTreeMap::is_empty",
        Some("String") => "String::is_empty",
        Some("bool") => "std::ops::Not::not",
        _ => "is_zero",
    }
}
