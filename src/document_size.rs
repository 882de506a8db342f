//! `MAX_BYTES`: the maximum size of a printed report.
//! `section_sizes`, `largest_section`: the sizes of the sections of a printed report, which may be truncated.

use crate::section_name::SectionName;

/// Maximum size of a report. The largest known report of a node with 16 GPUs has about 400 KB.
pub const MAX_BYTES: usize = 4 << 20;

/// Returns the largest section of a printed report, and its size in bytes. The document may be truncated. `None` if the
/// document has no sections.
pub fn largest_section(document: &[u8]) -> Option<(SectionName, usize)> {
    section_sizes(document).into_iter().max_by_key(|(_, size)| *size)
}

/// Returns the name and size of each section, in document order. For a truncated section, the size of the
/// available part is returned.
pub fn section_sizes(document: &[u8]) -> Vec<(SectionName, usize)> {
    let mut sizes = Vec::new();
    // `depth` is the nesting depth at the current position; `in_sections` is true inside the object `sections`.
    let (mut depth, mut in_sections) = (0_usize, false);
    let (mut string_start, mut in_string, mut escaped) = (0, false, false);
    let mut last_string: &[u8] = b"";
    let mut open: Option<(SectionName, usize)> = None;
    for (at, &byte) in document.iter().enumerate() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => {
                    in_string = false;
                    last_string = document.get(string_start..at).unwrap_or_default();
                }
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => (in_string, string_start) = (true, at + 1),
            b'{' | b'[' => depth += 1,
            b':' if depth == 1 => in_sections = last_string == b"sections",
            b':' if depth == 2 && in_sections => open = name(last_string).map(|name| (name, at + 1)),
            b',' if depth == 2 => sizes.extend(open.take().map(|(name, start)| (name, at - start))),
            b'}' | b']' => {
                if depth == 2 {
                    sizes.extend(open.take().map(|(name, start)| (name, at - start)));
                }
                depth = depth.saturating_sub(1);
            }
            _ => {}
        }
    }
    sizes.extend(open.map(|(name, start)| (name, document.len() - start)));
    sizes
}

/// Returns the section with this name; `None` for other text, so that messages contain only names of sections.
fn name(text: &[u8]) -> Option<SectionName> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::facts::host::Host;
    use crate::facts::kubelet::{Allocation, Kubelet};
    use crate::report::{Report, Section, Sections};

    fn report(hosts: &[String], pods: &[String]) -> Report {
        let host = Host { device_nodes: hosts.to_vec(), ..Host::default() };
        let allocation = |pod: &String| Allocation { pod_uid: pod.clone(), ..Allocation::default() };
        let kubelet = Kubelet { allocations: pods.iter().map(allocation).collect(), ..Kubelet::default() };
        let (host, kubelet) = (Some(Section::read(host, Vec::new())), Some(Section::read(kubelet, Vec::new())));
        Report { sections: Sections { host, kubelet, ..Sections::default() }, ..Report::default() }
    }

    proptest! {
        #[test]
        fn sizes_are_those_of_the_sections_alone_whatever_their_texts_say(
            hosts in prop::collection::vec(".{0,40}", 0..8),
            pods in prop::collection::vec(r#"[{}\[\]",:\\a]{0,40}"#, 0..8),
        ) {
            let report = report(&hosts, &pods);
            let document = serde_json::to_vec(&report).expect("JSON");
            let alone = |section: &dyn erased::Json| section.length();
            let expected = [(SectionName::Kubelet, alone(&report.sections.kubelet)), (SectionName::Host, alone(&report.sections.host))];
            prop_assert_eq!(section_sizes(&document), expected);
        }

        #[test]
        fn a_document_that_is_cut_anywhere_names_the_section_that_it_ends_in(end in 0_usize..4000) {
            let report = report(&vec!["nvidia\"0".into(); 100], &vec!["pod".into(); 20]);
            let document = serde_json::to_vec(&report).expect("JSON");
            let part = &document[..end.min(document.len())];
            let sizes = section_sizes(part);
            let whole = section_sizes(&document);
            prop_assert!(sizes.len() <= whole.len());
            for ((name, size), (expected, most)) in sizes.iter().zip(&whole) {
                prop_assert_eq!(name, expected);
                prop_assert!(size <= most);
            }
        }
    }

    #[test]
    fn what_is_no_report_has_no_section() {
        for text in ["", "{", "[]", "\"sections\": {\"host\":1}", "{\"sections\":{\"../../etc\":1}}"] {
            assert_eq!(section_sizes(text.as_bytes()), [], "{text}");
        }
    }

    /// Returns the length of a value as JSON, for sections of different types.
    mod erased {
        pub(super) trait Json {
            fn length(&self) -> usize;
        }
        impl<T: serde::Serialize> Json for T {
            fn length(&self) -> usize {
                serde_json::to_vec(self).expect("JSON").len()
            }
        }
    }
}
