//! `Tool`: the trait of a tool. `ToolEntry`: a tool without its Rust types. `run`: runs a tool.
//! `RenderedAnswer`: an answer as JSON and as text.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use syringe_core::text::clean;
use tokio::time::Instant;

use crate::answer::wire::shape::{AnswerShape, schema_of};
use crate::answer::wire::{fit_answer, untrusted_text};
use crate::call::CallContext;
use crate::outcome::{CommandAnswer, Outcome};
use crate::settings::ArchiveNote;
use crate::terminal::page::Page;
use crate::tools::common_args::without_node_type;
use kube_read::Failure;

/// Maximum length of the name of an object in an answer, including the type of the object (`TYPE/NAME`).
const MAX_NAME: usize = 260;

/// The field that marks an answer from an archive.
const ARCHIVE: &str = "archive";

pub trait Tool: Send + Sync + 'static {
    /// Name in MCP. The name of the command has dashes in place of underscores.
    const NAME: &'static str;
    const TITLE: &'static str;
    /// Description for models: content of the answer, and when to use the tool.
    const DESCRIPTION: &'static str;
    /// Whether the tool creates a pod. If so, the tool is not marked as read-only.
    const PROBES: bool;
    /// Whether the tool changes a node. If so, the tool exists only in operator mode.
    const DESTRUCTIVE: bool = false;
    /// Arguments of the tool and of its command, all validated before anything is created.
    type Args: clap::Args + Clone + DeserializeOwned + Serialize + JsonSchema + Send + Sync;
    type Answer: CommandAnswer + Serialize + JsonSchema + Send;

    fn call(call: CallContext, args: Self::Args) -> impl Future<Output = Result<Self::Answer, Failure>> + Send;

    /// Returns the answer as text for a terminal.
    fn page(answer: &Self::Answer) -> Page;
}

/// An answer as JSON and as text.
#[derive(Clone, Debug)]
pub struct RenderedAnswer {
    /// JSON, for a model or a pipe.
    pub json: Value,
    /// Text, for a terminal.
    pub page: Page,
    /// Names of the objects in the answer, as kubectl prints them.
    pub names: Vec<String>,
    /// The outcome, which determines the exit status of a command.
    pub outcome: Outcome,
}

/// A tool with its types erased.
pub struct ToolEntry {
    pub name: &'static str,
    pub title: &'static str,
    pub description: &'static str,
    /// Whether the tool creates a pod.
    pub probes: bool,
    /// Whether the tool changes a node.
    pub destructive: bool,
    /// JSON Schema of the arguments.
    pub input_schema: fn() -> Value,
    /// The complete JSON Schema of the answer, with definitions.
    pub(crate) answer_schema: fn() -> Value,
    call: fn(CallContext, Value) -> BoxFuture<'static, Result<RenderedAnswer, Failure>>,
}

impl ToolEntry {
    /// Returns the entry of a tool.
    pub fn of<T: Tool>() -> Self {
        Self {
            name: T::NAME,
            title: T::TITLE,
            description: T::DESCRIPTION,
            probes: T::PROBES,
            destructive: T::DESTRUCTIVE,
            input_schema: crate::answer::wire::schema::input::<T::Args>,
            answer_schema: schema_of::<T::Answer>,
            call: |call, args| async { run::<T>(call, parsed::<T>(args)?).await }.boxed(),
        }
    }

    /// Returns the short JSON Schema of the answer. Hosts get only this short form.
    pub fn output_schema(&self) -> Value {
        crate::answer::wire::schema::output(&(self.answer_schema)())
    }

    pub fn call(&self, call: CallContext, args: Value) -> BoxFuture<'static, Result<RenderedAnswer, Failure>> {
        (self.call)(call, args)
    }
}

fn parsed<T: Tool>(mut args: Value) -> Result<T::Args, Failure> {
    // As on the command line, the name of a node may include its type. In `node/79`, the type shows that 79 is not an
    // Xid.
    if let Some(Value::String(node)) = args.get_mut("node_name") {
        let name = without_node_type(node.trim());
        *node = if name.parse::<u32>().is_ok() { node.trim().to_owned() } else { name };
    }
    serde_json::from_value(args.clone()).map_err(|error| {
        let why = error.to_string();
        let argument = wrong_argument::<T::Args>(&args, &why).map(|name| format!("{name}: ")).unwrap_or_default();
        let why =
            NUMBERS.iter().fold(why, |why, number| why.replace(&format!("expected {number}"), "expected a number"));
        Failure::usage(
            format!("The arguments of {}", T::NAME),
            argument + &why,
            "Correct the argument: the input schema of the tool lists all of them.",
        )
    })
}

/// Names of number types in messages of the parser.
const NUMBERS: [&str; 4] = ["u64", "u32", "u16", "f64"];

/// Returns the argument that the message is about. This is the argument whose removal changes the message. `None` if
/// the message already contains the name of the argument.
fn wrong_argument<A: DeserializeOwned>(args: &Value, why: &str) -> Option<String> {
    let fields = args.as_object()?;
    let changes = |name: &&String| {
        let mut others = fields.clone();
        others.remove(*name);
        let left = serde_json::from_value::<A>(Value::Object(others));
        left.map_or_else(|other| other.to_string() != why, |_| true)
    };
    fields.keys().filter(|name| !why.contains(&format!("`{name}`"))).find(changes).map(|name| clean(name, 80))
}

/// Runs the tool and renders its answer.
pub(crate) async fn run<T: Tool>(call: CallContext, args: T::Args) -> Result<RenderedAnswer, Failure> {
    let call = CallContext { end: Instant::now() + call.settings.call_time(), ..call };
    let (archive, limits_size) = (call.settings.archive.clone(), call.limits_size);
    let answer = T::call(call, args).await?;
    let mut json = serde_json::to_value(&answer).map_err(|error| {
        Failure::new("Writing the answer", error, "This is a defect of gpu-syringe: please report it.")
    })?;
    let mut shape = AnswerShape::from_schema(&schema_of::<T::Answer>());
    let mut page = T::page(&answer);
    if let (Some(archive), Some(fields)) = (archive, json.as_object_mut()) {
        fields.insert(ARCHIVE.to_owned(), json!(archive));
        // The texts of the archive are third-party texts.
        shape = shape.with_field(ARCHIVE, AnswerShape::from_schema(&schema_of::<ArchiveNote>()));
        page.push_str(&format!("\n{}\n", archive.line()));
    }
    untrusted_text::finish(&mut json, &shape);
    if limits_size {
        fit_answer::fit(&mut json, &shape);
    }
    let names = answer.names().iter().map(|name| clean(name, MAX_NAME)).collect();
    Ok(RenderedAnswer { json, page, names, outcome: answer.outcome() })
}
