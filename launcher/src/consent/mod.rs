//! Consent: an action is done only to what a person saw in a plan and agreed to.
//!
//! ```text
//!   plan ─▶ Prompt ─┬─ a person said yes or no (elicitation, a terminal, --yes) ─▶ act, or not
//!                ├─ the host will ask and call again (InputRequired) ─┐
//!                │                                                    ├─▶ token ─▶ second call with the token ─▶ act
//!                └─ nobody can be asked here ─┬─ --token-to-model ────┘
//!                                             └─▶ the command for the user's own terminal
//! ```
//!
//! A token is bound to the content of the plan and to who may redeem it. It is valid for two minutes and for one attempt.
//! A token that goes to the model is not the consent of a person: the model can redeem it at once.

mod prompt;
mod call_consent;
mod terminal_command;
mod terminal_prompt;
mod token_content;
mod tokens;

pub use prompt::{Prompt, ConsentAnswer, HostAnswer, NoPrompt, Pending, AlwaysYes};
pub use call_consent::Consent;
pub(crate) use terminal_command::for_terminal;
pub use terminal_prompt::Terminal;
pub use token_content::content;
pub(crate) use token_content::{Bearer, borne};
pub use tokens::{Granted, LIFETIME, Tokens};
