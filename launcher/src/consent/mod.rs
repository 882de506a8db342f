//! Modules for the consent to an action (prompts, tokens, commands): a person must have read the plan of the action and
//! agreed to it.
//!
//! ```text
//!   plan ─▶ Prompt ─┬─ a person agreed or declined (elicitation, a terminal, --yes) ─▶ act, or not
//!                   ├─ the host will ask and call again (InputRequired) ─┐
//!                   │                                                    ├─▶ token ─▶ second call with the token ─▶ act
//!                   └─ nobody can be asked here ─┬─ --token-to-model ────┘
//!                                                └─▶ the command for the user's own terminal
//! ```
//!
//! A token is bound to the content of the plan and to who may redeem it. It is valid for two minutes and for one attempt.
//! A token that goes to the model is not the consent of a person: the model can redeem it at once.

mod call_consent;
mod prompt;
mod terminal_command;
mod terminal_prompt;
mod token_binding;
mod tokens;

pub use call_consent::Consent;
pub use prompt::{AlwaysYes, ConsentAnswer, HostAnswer, NoPrompt, PendingQuestion, Prompt};
pub(crate) use terminal_command::{shell_quoted, terminal_command_line};
pub use terminal_prompt::TerminalPrompt;
pub use token_binding::token_binding;
pub(crate) use token_binding::{Redeemer, redeemer_binding};
pub use tokens::{OpenToken, TOKEN_LIFETIME, Tokens};
