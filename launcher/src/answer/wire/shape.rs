//! `AnswerShape`: the fields and maps of an answer, and the author of each string (`Text`), from the JSON Schema of the
//! answer's type. `schema_of`, `alternatives`, `resolve`: read such a schema.
//!
//! A string is third-party text if a node, a tenant or a user of the cluster wrote it, or if it quotes such a text. It is
//! our own text only if its type is an enum, a time or a PCI address, or if the field has the mark `x-text`. So a new
//! field counts as third-party text until it is marked.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

/// The key of the mark of a field in the JSON Schema. The following constants are the values of the mark.
const MARK: &str = "x-text";
const OWN: &str = "own";
const WHOLE: &str = "whole";

/// The author of a string. If two types allow a string, the greater of the two values applies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Text {
    /// Text of the launcher. It is not changed.
    Own,
    /// Third-party text that is never shortened.
    Whole,
    /// Third-party text.
    #[default]
    Others,
}

/// The shape of a value.
#[derive(Clone, Debug, Default)]
pub(crate) struct AnswerShape {
    /// The author of a string of this shape, or of the keys of a map. `None`: the schema allows no string.
    text: Option<Text>,
    fields: BTreeMap<String, AnswerShape>,
    /// The values of a list or of a map.
    entry: Option<Box<AnswerShape>>,
    is_map: bool,
}

/// The shape of a value that the schema does not describe.
static UNKNOWN: AnswerShape = AnswerShape { text: None, fields: BTreeMap::new(), entry: None, is_map: false };

impl AnswerShape {
    /// Creates the shape of a type with this schema.
    pub(crate) fn from_schema(schema: &Value) -> Self {
        let none = Map::new();
        let mut shape = Self::default();
        shape.add(schema, schema["$defs"].as_object().unwrap_or(&none), None);
        shape
    }

    /// Adds the values that a schema allows.
    fn add(&mut self, schema: &Value, definitions: &Map<String, Value>, mark: Option<Text>) {
        let mark = match schema[MARK].as_str() {
            Some(OWN) => Some(Text::Own),
            Some(WHOLE) => Some(Text::Whole),
            _ => mark,
        };
        let schema = resolve(schema, definitions);
        for one in alternatives(schema).into_iter().flatten() {
            self.add(one, definitions, mark);
        }
        if is_type(schema, "string") || schema.get("const").is_some() {
            let is_ours = schema.get("enum").is_some()
                || schema.get("const").is_some()
                || matches!(schema["format"].as_str(), Some("date-time" | "pci-address"));
            let text = if is_ours { Text::Own } else { mark.unwrap_or_default() };
            self.text = self.text.max(Some(text));
        }
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            self.fields.entry(name.clone()).or_default().add(field, definitions, None);
        }
        if let Some(entry) = schema.get("items") {
            self.entry.get_or_insert_default().add(entry, definitions, mark);
        }
        if let Some(entry @ (Value::Object(_) | Value::Bool(true))) = schema.get("additionalProperties") {
            self.is_map = true;
            self.text = self.text.max(Some(mark.unwrap_or_default()));
            self.entry.get_or_insert_default().add(entry, definitions, mark);
        }
    }

    /// Returns the shape with one more field.
    pub(crate) fn with_field(mut self, name: &str, shape: Self) -> Self {
        self.fields.insert(name.to_owned(), shape);
        self
    }

    /// Returns the author of a string of this shape, or of the keys of a map.
    pub(crate) fn text(&self) -> Text {
        self.text.unwrap_or_default()
    }

    /// Returns whether the keys are data. In this case, entries may be left out, unlike the fields of a struct.
    pub(crate) fn is_map(&self) -> bool {
        self.is_map
    }

    /// Returns the shape of a field. `None`: the schema does not contain the field, so its name is data.
    pub(crate) fn field(&self, name: &str) -> Option<&Self> {
        self.fields.get(name)
    }

    /// Returns the shape of a field, or of a value of a map.
    pub(crate) fn field_or_entry(&self, name: &str) -> &Self {
        self.field(name).unwrap_or_else(|| self.entry())
    }

    pub(crate) fn is_list(&self) -> bool {
        self.entry.is_some() && !self.is_map
    }

    /// Returns the shape of the values of a list or map.
    pub(crate) fn entry(&self) -> &Self {
        self.entry.as_deref().unwrap_or(&UNKNOWN)
    }
}

/// Returns the schema of a serialized value.
pub(crate) fn schema_of<T: JsonSchema>() -> Value {
    SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<T>().into()
}

pub(crate) fn alternatives(schema: &Value) -> Option<&Vec<Value>> {
    ["anyOf", "oneOf"].iter().find_map(|word| schema[word].as_array())
}

pub(crate) fn resolve<'a>(schema: &'a Value, definitions: &'a Map<String, Value>) -> &'a Value {
    let name = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next());
    name.and_then(|name| definitions.get(name)).unwrap_or(schema)
}

fn is_type(schema: &Value, wanted: &str) -> bool {
    match &schema["type"] {
        Value::Array(several) => several.iter().any(|one| one == wanted),
        one => one == wanted,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::settings::Mode;
    use crate::tools::registry;

    /// Adds the fields with our own texts or keys, as `parent.field`.
    fn add_own(shape: &AnswerShape, parent: &str, name: &str, own: &mut BTreeSet<String>) {
        if shape.text == Some(Text::Own) {
            own.insert(format!("{parent}.{name}").trim_start_matches('.').to_owned());
        }
        shape.fields.iter().for_each(|(field, inner)| add_own(inner, name, field, own));
        shape.entry.iter().for_each(|entry| add_own(entry, parent, name, own));
    }

    fn own_fields(schema: &Value) -> BTreeSet<String> {
        let mut own = BTreeSet::new();
        add_own(&AnswerShape::from_schema(schema), "", "", &mut own);
        own
    }

    fn joined(names: &BTreeSet<String>) -> String {
        names.iter().map(String::as_str).collect::<Vec<_>>().join(" ")
    }

    const OF_A_TYPE: &str = "action.code action.outcome affected_gpus.pci_address affected_gpus.status archive.taken_at cards_without_ports.pci_address cause certainty changes.kind \
             changes.severity checked \
             containers.role events.first events.kind events.last events.not_before events.occurrences \
             events.pci_address findings.action findings.class findings.severity gpudirect.acs_root_ports gpudirect.acs_switch_ports gpus.pci_address gpus.recovery_action gpus.status health.status inventory.draining inventory.excluded kernel_log.from \
             kernel_log.to kinds.severity kubernetes.lease_renewed lost.pci_address nics.pci_address node_findings.class node_findings.severity nodes.earlier_at nodes.later_at nodes.urgency \
             nodes.verdict \
             not_requested now.not_read now.recovery_action nvlinks.remote_pci_address other_probes.source other_probes.taken_at overall_health partly_checked pcie_path.pci_address \
             plan.action plan.pci_address plan.rma plan.urgency pod_events.last probe.source probe.taken_at process.started_at resources.unit scope.files \
             scope.gpus scope.pci scope.processes sections_read.section sections_read.status since stack.stage \
             stack.state state status suspect_pod.cause suspects.because suspects.since sxid.severity taken_at timeline.time \
             topology.nvswitches verdict xid.severity";
    const MARKED: &str = "checked_only compared.fact deductions.finding detail_omitted devices.source findings.dcgm findings.id findings.reference \
             findings.title kinds.action kinds.condition node_findings.dcgm node_findings.id node_findings.reference node_findings.title \
             other_probes.via outcome outliers.what plan.findings probe.via sxid.action sxid.fatality sxid.mnemonic sxid.name sxid.nvidia_action \
             terminal_command token unknown.section verdicts xid.action xid.class xid.differs_from_nvidia_because xid.mnemonic xid.name \
             xid.note xid.nvidia_action xid.nvidia_investigation";

    /// A field may have a mark only if no text of a node, a tenant or an API object gets into the field.
    #[test]
    fn only_these_fields_of_all_answers_hold_our_own_text() {
        let (mut by_type, mut by_mark) = (BTreeSet::new(), BTreeSet::new());
        for tool in registry::all(Mode::Operator) {
            let schema = (tool.answer_schema)();
            let without_marks = schema.to_string().replace(MARK, "x-other");
            let of_type = own_fields(&serde_json::from_str(&without_marks).expect("a schema"));
            by_mark.extend(own_fields(&schema).difference(&of_type).cloned());
            by_type.extend(of_type);
        }
        assert_eq!(joined(&by_type), OF_A_TYPE, "enums, times and PCI addresses");
        assert_eq!(joined(&by_mark), MARKED, "fields with a mark");
    }
}
