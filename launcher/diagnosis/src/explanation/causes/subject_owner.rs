//! `add`: adds the owner of a named argument, variable, volume, hook folder or platform to the action of an
//! explanation.
//!
//! Only lines about errors count, because a program also prints its settings.

use crate::explanation::causes::{Case, injection};
use crate::explanation::types::{Cause, Explanation};
use crate::input::platforms;
use crate::messages::hints::without_hints;
use crate::messages::phrases::{self, RESOLVE};
use crate::messages::{owners, placeholders, shapes, versions};
use syringe_core::classification::ActionCode;
use syringe_core::facts::kubernetes::pod::{ContainerSpec, ContainerState};
use syringe_core::report::Section;
use syringe_core::text::clean;

/// Maximum length of a name in an action.
const MAX_NAME: usize = 160;
/// Maximum length of a message that is used as a whole.
const MAX_WHOLE: usize = 300;
/// Maximum number of sentences that are added.
const MAX_ADDED: usize = 3;

/// Programs of the container toolkit that hooks call.
const TOOLKIT: [&str; 5] = [
    "nvidia-ctk",
    "nvidia-cdi-hook",
    "nvidia-container-runtime-hook",
    "nvidia-container-runtime",
    "nvidia-container-cli",
];

/// Adds to the action the owners of the things that the messages of the failed component name.
pub(super) fn add(case: &Case<'_>, explanation: &mut Explanation) {
    if matches!(explanation.cause, Cause::None | Cause::Gpu) || case.pod.node.is_none() {
        return;
    }
    let lines = messages(case);
    let text = lines.join("\n");
    let failed = case.failed().map(|end| end.container);
    let specs = case.pod.specs.iter().filter(|spec| failed.is_none_or(|name| spec.name == name));
    let of_spec = specs
        .filter_map(|spec| argument(spec, &lines).or_else(|| variable(spec, &lines)).or_else(|| volume(spec, &lines)));
    // If the summary already names a variable that hides the GPUs, no other reason is added.
    let is_named = injection::hiding_variable(case, &text).is_some_and(|one| explanation.summary.contains(&one));
    // A missing request of the container has priority over other ways to get a GPU.
    let is_request = explanation.action.code == ActionCode::ChangeRequest;
    let without_driver = injection::why_without_driver(case, &text).filter(|_| !is_named && !is_request);
    // An action that repairs a known error does not need the owners of the other things that its message names.
    let repairs = !phrases::only_looks(&explanation.action.text);
    let sentences = of_spec
        .take(1)
        .chain(hook(case, &text))
        .chain(without_driver.clone())
        .chain(if repairs { Vec::new() } else { things(case, &lines) })
        .chain(platform(case, &text));
    let is_new = |sentence: &String| {
        !explanation.summary.contains(sentence.as_str()) && !explanation.action.text.contains(sentence.as_str())
    };
    let mut all: Vec<String> = sentences.filter(is_new).take(MAX_ADDED).collect();
    let text = std::mem::take(&mut explanation.action.text);
    // A reason that the facts show replaces the usual reason.
    if without_driver.is_none() || !text.starts_with(RESOLVE) {
        all.push(text);
    }
    explanation.action.text = all.join(" ").trim_end().to_owned();
}

/// Returns sentences about the owners of the things that the innermost errors name.
fn things(case: &Case<'_>, lines: &[String]) -> Vec<String> {
    let told = shapes::telling_lines(lines.iter().map(String::as_str));
    // A long message is a chain of errors that contains irrelevant names, so only its innermost error is used.
    let text_of =
        |line: &str| if line.len() > MAX_WHOLE { shapes::core(line) } else { shapes::undecorated(line).into_owned() };
    let texts: Vec<String> = told.into_iter().map(text_of).collect();
    let sentences = owners::about(texts.iter().map(String::as_str));
    let pair = versions::pair(texts.iter().map(String::as_str))
        .map(|pair| format!("Compare these versions, and use versions that are compatible: {}.", pair.in_words()));
    let placeholder = texts.iter().find_map(|text| placeholders::host(text)).map(placeholders::advice);
    placeholder.into_iter().chain(pair).chain(sentences).map(|sentence| sentence.replace("{node}", case.node)).collect()
}

/// Returns the lines about errors from the messages of the failed component.
fn messages(case: &Case<'_>) -> Vec<String> {
    let pod = case.pod;
    let end = case.failed();
    let said = end.iter().flat_map(|end| end.message.lines());
    let logs = pod.log_lines.iter().map(String::as_str).chain(case.log_on_node());
    let events = pod.events.iter().rev().filter(|event| event.warning).map(|event| event.message.as_str());
    let waiting = pod.containers.iter().filter_map(|container| match &container.state {
        ContainerState::Waiting { message, .. } => Some(message.as_str()),
        _ => None,
    });
    said.chain(logs)
        .chain(waiting)
        .chain(events)
        .filter(|line| shapes::is_error(line))
        .take(40)
        .map(|line| without_hints(line).into_owned())
        .collect()
}

/// Returns a sentence about the argument of the container that an error names.
fn argument(spec: &ContainerSpec, lines: &[String]) -> Option<String> {
    let words = spec.arguments.iter().flat_map(|argument| argument.split_whitespace());
    let flags = words.filter(|word| word.starts_with('-') && word.len() > 2);
    let mut names = flags.map(|flag| flag.split('=').next().unwrap_or(flag));
    let named = names.find(|name| lines.iter().any(|line| has_word(line, name)))?;
    Some(format!(
        "{} is an argument of container {} (image {}): remove or correct it in the pod's specification, or use a version of the image that supports it.",
        clean(named, MAX_NAME),
        spec.name,
        clean(&spec.image, MAX_NAME)
    ))
}

/// Returns a sentence about the variable of the container whose name or value an error contains.
fn variable(spec: &ContainerSpec, lines: &[String]) -> Option<String> {
    // Short values and ordinary words occur in many messages.
    let telling = |value: &str| value.len() > 3 && value.chars().any(|one| !one.is_ascii_alphabetic());
    let by_name = |(name, _): &&(String, String)| name.len() > 4 && lines.iter().any(|line| has_word(line, name));
    let by_value = |(_, value): &&(String, String)| telling(value) && lines.iter().any(|line| has_word(line, value));
    let known = spec.environment.iter().find(by_name);
    let (name, value) = known.or_else(|| spec.environment.iter().find(by_value))?;
    let shown = if lines.iter().any(|line| has_word(line, value)) && telling(value) {
        format!("{name}={value}")
    } else {
        name.clone()
    };
    Some(format!(
        "The message is about the variable {} of container {} (image {}): correct its value for this version.",
        clean(&shown, MAX_NAME),
        spec.name,
        clean(&spec.image, MAX_NAME)
    ))
}

/// Returns a sentence about the volume that contains a path of an error.
fn volume(spec: &ContainerSpec, lines: &[String]) -> Option<String> {
    let paths = lines
        .iter()
        .flat_map(|line| line.split(|character: char| character.is_whitespace() || "'\"`:,()[]".contains(character)));
    let paths = paths.filter(|word| word.starts_with('/') && word.len() > 3);
    let (path, (mount, volume)) = paths.into_iter().find_map(|path| {
        let under = |mount: &&(String, String)| {
            mount.0.len() > 1
                && path
                    .strip_prefix(mount.0.trim_end_matches('/'))
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        Some((path, spec.mounts.iter().filter(under).max_by_key(|mount| mount.0.len())?))
    })?;
    // Every pod has the token of its service account.
    (!mount.starts_with("/var/run/secrets/")).then(|| {
        let path = clean(path, MAX_NAME);
        format!(
            "{path} is in container {} below the mount {mount}: {}. Correct that volume or its content.",
            spec.name,
            clean(volume, MAX_NAME)
        )
    })
}

/// Returns where the programs of the container toolkit are, if a hook searches one of them in another folder.
fn hook(case: &Case<'_>, text: &str) -> Option<String> {
    let host = Section::data_of(&case.report?.sections.host)?;
    let folder = host.container_toolkit.as_deref()?.rsplit_once('/')?.0;
    let words = text.split(|character: char| character.is_whitespace() || "'\"`:,".contains(character));
    let of_toolkit = |word: &&str| {
        let (other, program) = word.rsplit_once('/').unwrap_or_default();
        word.starts_with('/') && TOOLKIT.contains(&program) && other != folder
    };
    let path = words.into_iter().find(of_toolkit).filter(|path| is_missing(text, path))?;
    let specs = host.cdi.as_ref().map(|cdi| cdi.specs.as_slice()).unwrap_or_default();
    let of_writer =
        |kind: &str| if kind.starts_with("k8s.device-plugin.") { ", which the device plugin writes" } else { "" };
    let specs: Vec<String> =
        specs.iter().map(|spec| format!("{}{}", clean(&spec.path, MAX_NAME), of_writer(&spec.kind))).take(3).collect();
    let specs = if specs.is_empty() { String::new() } else { format!(" ({})", specs.join("; ")) };
    Some(format!(
        "The programs of the container toolkit of {} are in {folder}, but the hook looks for {}. Correct the path in \
         the CDI specification{specs} or in the configuration of NVIDIA's runtime (nvidiaCDIHookPath, \
         NVIDIA_CDI_HOOK_PATH or NVIDIA_CTK_PATH of the component that writes this path).",
        case.node,
        clean(path, MAX_NAME)
    ))
}

/// Returns whether a message reports that this path does not exist. Another error of the program itself has other
/// words.
fn is_missing(text: &str, path: &str) -> bool {
    const ABSENT: [&str; 5] =
        ["no such file", "not found", "does not exist", "cannot find", "executable file not found"];
    let text = text.to_ascii_lowercase();
    text.match_indices(&path.to_ascii_lowercase()).any(|(at, path)| {
        let after = text[at + path.len()..].trim_start_matches(['"', '\'', '`', ':', ' ', '\\']);
        ABSENT.iter().any(|words| after.starts_with(words))
    })
}

/// Returns the note about the platform of the node, if the message is about files, devices or the driver.
fn platform(case: &Case<'_>, text: &str) -> Option<String> {
    let report = case.report?;
    let about_files = shapes::is_about_files(text);
    let of_stack = case.pod.is_gpu_stack || text.to_ascii_lowercase().contains("nvidia");
    (about_files && of_stack).then(|| platforms::note(report))?
}

/// Returns whether a text contains these words as whole words.
fn has_word(text: &str, word: &str) -> bool {
    let inside = |character: Option<char>| character.is_some_and(|one| one.is_ascii_alphanumeric() || one == '_');
    !word.is_empty()
        && text
            .match_indices(word)
            .any(|(at, _)| !inside(text[..at].chars().next_back()) && !inside(text[at + word.len()..].chars().next()))
}
