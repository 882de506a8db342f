//! `note`: a note about the platform of a node, if NVIDIA's software works differently there than on plain Linux.
//! `has_device_plugin`: whether an image includes a device plugin. Both are from `data/platforms.tsv`.

use std::sync::LazyLock;

use syringe_core::report::{Report, Section};
use syringe_core::tsv::rows;

/// Words that identify a platform, the word of its images that include a device plugin, and the note about the
/// platform.
type Platform = (Vec<&'static str>, Option<&'static str>, &'static str);

static PLATFORMS: LazyLock<Vec<Platform>> = LazyLock::new(|| {
    let rows = rows(include_str!("../data/platforms.tsv"));
    rows.filter_map(|row| {
        let [words, _name, plugin, note, _source] = row[..] else { return None };
        Some((words.split(" | ").collect(), Some(plugin).filter(|word| *word != "-"), note))
    })
    .collect()
});

/// Returns whether an OS image includes a device plugin: `Bottlerocket OS 1.20.0 (aws-k8s-1.30-nvidia)`.
pub(crate) fn has_device_plugin(image: &str) -> bool {
    let image = image.to_ascii_lowercase();
    let is_of = |words: &[&str]| words.iter().any(|word| image.contains(word));
    PLATFORMS.iter().any(|(words, plugin, _)| is_of(words) && plugin.is_some_and(|word| image.contains(word)))
}

/// Returns the note about the platform of a node. `None` for plain Linux.
pub(crate) fn note(report: &Report) -> Option<String> {
    let host = Section::data_of(&report.sections.host)?;
    let runtime = host.container_runtime.as_ref().and_then(|runtime| runtime.config_path.as_deref());
    let texts = [host.operating_system.as_deref(), report.kernel.as_deref(), runtime];
    let texts: Vec<String> = texts.into_iter().flatten().map(str::to_ascii_lowercase).collect();
    let is_of = |words: &Vec<&str>| words.iter().any(|word| texts.iter().any(|text| text.contains(word)));
    PLATFORMS.iter().find(|(words, ..)| is_of(words)).map(|(.., note)| (*note).to_owned())
}

#[cfg(test)]
mod tests {
    use super::{PLATFORMS, has_device_plugin, note};
    use syringe_core::facts::host::Host;
    use syringe_core::report::{Report, Section};
    use syringe_core::tsv::rows;

    #[test]
    fn platforms_are_recognized_by_name_kernel_or_configuration() {
        assert_eq!(PLATFORMS.len(), rows(include_str!("../data/platforms.tsv")).count(), "a row has an error");
        let of = |system: &str, kernel: &str| {
            let host = Host { operating_system: Some(system.to_owned()), ..Host::default() };
            let mut report = Report { kernel: Some(kernel.to_owned()), ..Report::default() };
            report.sections.host = Some(Section::read(host, Vec::new()));
            note(&report)
        };
        assert!(of("Talos (v1.13.0)", "6.18.9-talos").is_some_and(|note| note.contains("/usr/local/bin")));
        assert!(
            of("Ubuntu 22.04.4 LTS", "5.10.102.1-microsoft-standard-WSL2").is_some_and(|note| note.contains("WSL"))
        );
        assert_eq!(of("Ubuntu 22.04.4 LTS", "5.15.0-1066-azure"), None);
        assert!(has_device_plugin("Bottlerocket OS 1.44.0 (aws-k8s-1.33-nvidia)"));
        assert!(!has_device_plugin("Bottlerocket OS 1.44.0 (aws-k8s-1.33)") && !has_device_plugin("Ubuntu 24.04"));
    }
}
