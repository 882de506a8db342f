//! The form of a phrase: the words that it is known by, what it means, what it names, and what helps.

use crate::diagnosis::ActionCode;
use crate::explanation::Cause;

/// Words about a CDI device of a claim: DRA drivers name the kind after the claim's driver, with `k8s.` before it.
pub(super) const CLAIM_WITHOUT_CDI: &str = "unresolvable cdi devices k8s.";

/// Words of a runtime that has no CDI device of the name.
pub(super) const UNRESOLVED_CDI: &str = "unresolvable cdi devices";

/// One phrase.
pub(super) struct Phrase {
    /// All of these must be in the message, in lower case.
    pub(super) words: &'static [&'static str],
    /// Where the cause lies.
    pub(super) cause: Cause,
    /// What it means; `{it}` is what the message names.
    pub(super) what: &'static str,
    /// Where the message names it.
    pub(super) names: Option<Names>,
    /// What kind of action helps.
    pub(super) code: ActionCode,
    /// What to do; `{node}` is the node.
    pub(super) action: &'static str,
    /// Beginnings of the ids of findings about the node that say why.
    pub(super) findings: &'static [&'static str],
}

/// How a message names something: after these words, up to one of these characters.
#[derive(Clone, Copy)]
pub(super) struct Names {
    pub(super) after: &'static str,
    until: &'static [char],
    /// What is said where the message has no name.
    otherwise: &'static str,
}

/// Longest name that is taken from a message.
const MAX_NAME: usize = 120;

impl Phrase {
    /// What it means in this message.
    pub(super) fn meaning(&self, message: &str) -> String {
        let Some(names) = self.names else { return self.what.to_owned() };
        self.what.replace("{it}", &names.find(message).unwrap_or_else(|| names.otherwise.to_owned()))
    }

    /// The CDI device that the runtime does not know, where the phrase is about that.
    pub(super) fn unresolved_cdi_device(&self, message: &str) -> Option<String> {
        self.names.filter(|_| self.words.contains(&UNRESOLVED_CDI))?.find(message)
    }

    /// Whether it is about files that do not outlive a boot.
    pub(super) fn is_lost_at_boot(&self) -> bool {
        self.words.contains(&CLAIM_WITHOUT_CDI)
    }

    /// The same phrase with a name in it.
    pub(super) const fn naming(self, after: &'static str, until: &'static [char], otherwise: &'static str) -> Self {
        Self { names: Some(Names { after, until, otherwise }), ..self }
    }

    /// The same phrase, explained by findings whose ids begin so.
    pub(super) const fn because_of(self, findings: &'static [&'static str]) -> Self {
        Self { findings, ..self }
    }
}

impl Names {
    fn find(&self, message: &str) -> Option<String> {
        // Lower case of ASCII letters keeps the places of all characters.
        let at = message.to_ascii_lowercase().find(self.after)? + self.after.len();
        let rest = &message[at..];
        let name = rest[..rest.find(self.until).unwrap_or(rest.len())].trim_matches([' ', ':', ',', '"']);
        (!name.is_empty()).then(|| crate::text::clean(name, MAX_NAME))
    }
}

/// A phrase whose cause is the node.
pub(super) const fn node(words: &'static [&'static str], what: &'static str, action: &'static str) -> Phrase {
    let code = ActionCode::UpdateSoftware;
    Phrase { words, cause: Cause::Node, what, names: None, code, action, findings: &[] }
}

/// A phrase whose cause is the cluster.
pub(super) const fn cluster(words: &'static [&'static str], what: &'static str, action: &'static str) -> Phrase {
    let code = ActionCode::Watch;
    Phrase { words, cause: Cause::Cluster, what, names: None, code, action, findings: &[] }
}

/// A phrase whose cause is the pod's own program, image or settings.
pub(super) const fn program(words: &'static [&'static str], what: &'static str, action: &'static str) -> Phrase {
    let code = ActionCode::None;
    Phrase { words, cause: Cause::Application, what, names: None, code, action, findings: &[] }
}
