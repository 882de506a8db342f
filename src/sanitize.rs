//! `sanitize`: cleans all texts of a document from a node, and truncates long lists.
//!
//! The probe also cleans its texts, but the owner of the node can send any document.

use serde::de::Error as _;
use serde_json::{Error, Map, Value, json};

use crate::text::{clean, command, replacement};

/// Maximum length of a text. Kernel lines have at most 320 characters, texts of the probe at most 900.
const MAX_TEXT: usize = 1000;
/// Maximum length of a text of an action. A person reads these texts before confirming the action.
const MAX_OF_ACTION: usize = 600;
/// Maximum length of a field name.
const MAX_NAME: usize = 80;
/// Maximum length of a list. This is also the maximum number of processes that is requested from NVML.
const MAX_LIST: usize = 4096;
/// Maximum number of records of a kernel log. The probe prints at most 2 MiB of records.
const MAX_RECORDS: usize = 64 << 10;
/// Maximum length of a list of an action.
const MAX_LIST_OF_ACTION: usize = 64;
/// Maximum number of fields of an object.
const MAX_FIELDS: usize = 512;
/// Maximum size of the common values of a list. The limit is needed because these values are copied into each entry
/// when the document is read.
const MAX_COMMON: usize = 16 << 10;

/// Cleans a document from a node.
pub(crate) fn sanitize(document: &mut Value) -> Result<(), Error> {
    let Value::Object(fields) = document else { return Ok(()) };
    let mut cut = Vec::new();
    for (name, value) in fields.iter_mut() {
        let rules = match name.as_str() {
            "action" => OF_ACTION,
            "kernel_log" => OF_LOG,
            _ => OF_SECTION,
        };
        match (name.as_str(), value) {
            ("sections", Value::Object(sections)) => {
                for section in sections.values_mut() {
                    let mut cut = Vec::new();
                    rules.apply(section, "", &mut cut)?;
                    note(section, &cut);
                }
            }
            (name, value) => rules.apply(value, name, &mut cut)?,
        }
    }
    Ok(())
}

/// Limits of a text and of a list.
#[derive(Clone, Copy)]
struct Rules {
    text: usize,
    list: usize,
}

const OF_SECTION: Rules = Rules { text: MAX_TEXT, list: MAX_LIST };
const OF_LOG: Rules = Rules { text: MAX_TEXT, list: MAX_RECORDS };
const OF_ACTION: Rules = Rules { text: MAX_OF_ACTION, list: MAX_LIST_OF_ACTION };

/// A list that was truncated: its name, and the original number of entries.
type Cut = (String, usize);

impl Rules {
    fn apply(self, value: &mut Value, name: &str, cut: &mut Vec<Cut>) -> Result<(), Error> {
        match value {
            Value::String(text) => {
                if let Some(clean) = replacement(text, self.text) {
                    *text = clean;
                }
            }
            Value::Array(list) => {
                if list.len() > self.list {
                    cut.push((name.to_owned(), list.len()));
                    list.truncate(self.list);
                }
                for entry in list {
                    self.apply(entry, name, cut)?;
                }
            }
            Value::Object(fields) => self.fields(fields, name, cut)?,
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
        Ok(())
    }

    fn fields(self, fields: &mut Map<String, Value>, of: &str, cut: &mut Vec<Cut>) -> Result<(), Error> {
        if fields.len() > MAX_FIELDS {
            return Err(Error::custom(format_args!("an object has {} fields", fields.len())));
        }
        // The map is built again only for a name that is not clean, because each insertion computes a hash.
        if fields.keys().any(|name| replacement(name, MAX_NAME).is_some()) {
            *fields = std::mem::take(fields).into_iter().map(|(name, value)| (clean(&name, MAX_NAME), value)).collect();
        }
        for (name, value) in fields.iter_mut() {
            if name.starts_with("all_") && value.to_string().len() > MAX_COMMON {
                return Err(Error::custom(format_args!("{name} is longer than {MAX_COMMON} bytes")));
            }
            match value {
                // Command lines are shortened, except the steps of an action, which are commands of the probe.
                Value::String(line) if name == "command" && of != "steps" => *line = command::shorten([line.as_str()]),
                value => self.apply(value, name, cut)?,
            }
        }
        Ok(())
    }
}

/// Adds a problem about the truncated lists to a section.
fn note(section: &mut Value, cut: &[Cut]) {
    let Value::Object(section) = section else { return };
    if cut.is_empty() {
        return;
    }
    let problem = |(name, length): &Cut| {
        json!({
            "what": name,
            "why": format!("the node reported {length} entries; only the first {MAX_LIST} were kept"),
            "code": "list_cut",
        })
    };
    let problems = section.entry("problems").or_insert_with(|| json!([]));
    if let Value::Array(problems) = problems {
        problems.extend(cut.iter().map(problem));
    }
    if section.get("status").is_some_and(|status| status == "ok") {
        section.insert("status".to_owned(), json!("partial"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::facts::action::Action;
    use crate::report::{Report, Status};

    fn read(document: &Value) -> Result<Report, String> {
        Report::from_node(document.to_string().as_bytes()).map_err(|error| error.to_string())
    }

    fn of_processes(processes: &Value) -> Value {
        json!({"sections": {"processes": {"status": "ok", "data": {"processes": processes}}}})
    }

    #[test]
    fn a_command_line_is_shortened_and_other_text_is_cleaned() {
        let process =
            json!({"pid": 1, "name": "a\u{1b}[2J\u{fe0f}b", "command": "python3 x.py --token hunter2 hunter2"});
        let report = read(&of_processes(&json!([process]))).expect("a report");
        let process = &report.sections.processes.expect("asked for").data.expect("read").processes[0];
        assert_eq!(process.name.as_deref(), Some("a [2J b"));
        assert_eq!(process.command.as_deref(), Some("python3 x.py --token …"));
    }

    #[test]
    fn the_plan_of_an_action_is_cleaned_and_capped_alike() {
        let action = json!({"kind": "kill", "refusal": {
            "code": "protected", "why": "no\u{1b}[2J\nDo this? Type yes: ", "next_step": "x".repeat(2 * MAX_OF_ACTION),
        }, "notes": vec!["n"; 1000], "process": {"pid": 1, "command": "a --password b"}});
        let Some(Action::Kill(kill)) = read(&json!({ "action": action })).expect("a report").action else { panic!() };
        let refusal = kill.refusal.expect("a refusal");
        assert_eq!(refusal.why, "no [2J Do this? Type yes:");
        assert_eq!(refusal.next_step.chars().count(), MAX_OF_ACTION);
        assert_eq!(kill.notes.len(), MAX_LIST_OF_ACTION);
        assert_eq!(kill.process.and_then(|process| process.command).as_deref(), Some("a --password …"));
    }

    #[test]
    fn what_a_reset_ran_is_shown_as_it_was() {
        let steps = json!([{"command": "nvidia-smi --gpu-reset -i GPU-1", "message": "ok"}]);
        let Some(Action::Reset(reset)) =
            read(&json!({"action": {"kind": "reset", "steps": steps}})).expect("a report").action
        else {
            panic!()
        };
        assert_eq!(reset.steps[0].command, "nvidia-smi --gpu-reset -i GPU-1");
    }

    #[test]
    fn a_list_that_is_cut_is_a_problem_of_its_section() {
        let many = vec![json!({"pid": 1}); MAX_LIST + 1];
        let section = read(&of_processes(&json!(many))).expect("a report").sections.processes.expect("asked for");
        assert_eq!(section.data.expect("read").processes.len(), MAX_LIST);
        assert_eq!(section.status, Status::Partial);
        assert!(section.problems[0].why.contains("4097 entries"), "{:?}", section.problems);
    }

    #[test]
    fn a_document_that_would_become_too_large_is_rejected() {
        let common = json!({"name": "x", "serial": vec!["y".repeat(900); 100]});
        let gpus = json!({"status": "ok", "data": {"all_gpus": common, "gpus": vec![json!({}); 4096]}});
        let error = read(&json!({"sections": {"inventory": gpus}})).expect_err("refused");
        assert!(error.contains("all_gpus"), "{error}");
        let wide: Map<String, Value> = (0..1000).map(|number| (number.to_string(), json!(1))).collect();
        assert!(read(&json!({ "scope": wide })).is_err());
    }
}
