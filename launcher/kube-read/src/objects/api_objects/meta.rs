//! `Quantity`, `Time`, `Owner`: types that all objects share. `given`, `quantities`, `time`: convert texts and these
//! types.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as FullQuantity;
use prost::Message;
use serde::{Deserialize, Deserializer};

/// Quantities by resource name.
pub type Quantities = BTreeMap<String, Quantity>;

/// An amount of a resource, such as `8` or `2Gi`.
#[derive(Clone, PartialEq, Eq, Message, Deserialize)]
#[serde(transparent)]
pub struct Quantity {
    #[prost(string, tag = "1")]
    pub text: String,
}

/// A time: a message in protobuf, RFC 3339 in JSON.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Time {
    /// Seconds since 1970.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl Time {
    /// Returns the time, or `None` for 1970, which the API uses for a container that never started.
    pub fn timestamp(self) -> Option<Timestamp> {
        Timestamp::new(self.seconds, self.nanos).ok().filter(|time| time.as_second() > 0)
    }
}

impl<'de> Deserialize<'de> for Time {
    /// Deserializes a time. An invalid time counts as not set.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time: Option<Timestamp> = text.parse().ok();
        Ok(time.map_or_else(Self::default, |time| Self { seconds: time.as_second(), nanos: time.subsec_nanosecond() }))
    }
}

/// The owner of an object.
#[derive(Clone, PartialEq, Eq, Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Owner {
    #[prost(string, tag = "1")]
    pub kind: String,
    #[prost(string, tag = "3")]
    pub name: String,
    #[prost(string, tag = "5")]
    pub api_version: String,
    /// Whether the owner manages the object.
    #[prost(bool, optional, tag = "6")]
    pub controller: Option<bool>,
}

/// Returns the text, or `None` if it is empty.
pub fn given(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// Converts quantities to the type of k8s-openapi. Returns `None` if there are none.
pub fn quantities(of: Quantities) -> Option<BTreeMap<String, FullQuantity>> {
    let all = of.into_iter().map(|(name, quantity)| (name, FullQuantity(quantity.text)));
    Some(all.collect()).filter(|all: &BTreeMap<_, _>| !all.is_empty())
}

/// Converts a time to the type of k8s-openapi.
pub fn time(of: Option<Time>) -> Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time> {
    of.and_then(Time::timestamp).map(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time)
}
