//! A phrase: the words that identify a message, the meaning of the message, the name in it, and the action.

use crate::explanation::types::Cause;
use syringe_core::classification::ActionCode;

/// Message about a CDI device of a claim. DRA drivers build the kind from `k8s.` and the driver's name.
pub(crate) const CLAIM_WITHOUT_CDI: &str = "unresolvable cdi devices k8s.";

/// Message about a CDI device that does not exist.
pub(crate) const UNRESOLVED_CDI: &str = "unresolvable cdi devices";

pub(crate) struct Phrase {
    /// Lower-case words that the message must all contain.
    pub(crate) words: &'static [&'static str],
    pub(crate) cause: Cause,
    /// Meaning; `{it}` stands for the name in the message.
    pub(crate) what: &'static str,
    /// Position of the name in the message.
    pub(crate) names: Option<Names>,
    pub(crate) code: ActionCode,
    /// Text of the action; `{node}` stands for the node's name.
    pub(crate) action: &'static str,
    /// Prefixes of the ids of findings about the node that give the reason.
    pub(crate) findings: &'static [&'static str],
}

/// Position of a name in a message: after these words, up to one of these characters.
#[derive(Clone, Copy)]
pub(crate) struct Names {
    pub(crate) after: &'static str,
    until: &'static [char],
    /// Replacement if the message has no name.
    otherwise: &'static str,
}

/// Longest name that is taken from a message.
const MAX_NAME: usize = 120;

impl Phrase {
    /// Returns the meaning of a message.
    pub(crate) fn meaning(&self, message: &str) -> String {
        let Some(names) = self.names else { return self.what.to_owned() };
        self.what.replace("{it}", &names.find(message).unwrap_or_else(|| names.otherwise.to_owned()))
    }

    /// The CDI device that was not found, if the phrase is about that.
    pub(crate) fn unresolved_cdi_device(&self, message: &str) -> Option<String> {
        self.names.filter(|_| self.words.contains(&UNRESOLVED_CDI))?.find(message)
    }

    /// Returns whether it is about files that a boot removes.
    pub(crate) fn is_lost_at_boot(&self) -> bool {
        self.words.contains(&CLAIM_WITHOUT_CDI)
    }

    /// Sets the position of the name.
    pub(crate) const fn naming(self, after: &'static str, until: &'static [char], otherwise: &'static str) -> Self {
        Self { names: Some(Names { after, until, otherwise }), ..self }
    }

    /// Sets the prefixes of the findings that give the reason.
    pub(crate) const fn because_of(self, findings: &'static [&'static str]) -> Self {
        Self { findings, ..self }
    }
}

impl Names {
    fn find(&self, message: &str) -> Option<String> {
        // Converting ASCII letters to lower case keeps all byte offsets.
        let at = message.to_ascii_lowercase().find(self.after)? + self.after.len();
        let rest = &message[at..];
        let name = rest[..rest.find(self.until).unwrap_or(rest.len())].trim_matches([' ', ':', ',', '"']);
        (!name.is_empty()).then(|| syringe_core::text::clean(name, MAX_NAME))
    }
}

/// A phrase whose cause is the node.
pub(crate) const fn node(words: &'static [&'static str], what: &'static str, action: &'static str) -> Phrase {
    let code = ActionCode::UpdateSoftware;
    Phrase { words, cause: Cause::Node, what, names: None, code, action, findings: &[] }
}

/// A phrase whose cause is the cluster.
pub(crate) const fn cluster(words: &'static [&'static str], what: &'static str, action: &'static str) -> Phrase {
    let code = ActionCode::Watch;
    Phrase { words, cause: Cause::Cluster, what, names: None, code, action, findings: &[] }
}

/// A phrase whose cause is the pod's own program, image or settings.
pub(crate) const fn program(words: &'static [&'static str], what: &'static str, action: &'static str) -> Phrase {
    let code = ActionCode::None;
    Phrase { words, cause: Cause::Application, what, names: None, code, action, findings: &[] }
}
