//! The types `Expression` and `Scope`: CEL as in an API server, with the strings library and a minimal authorizer.
//!
//! The authorizer only checks the right to act.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

use cel::extractors::This;
use cel::{Context, Env, Program};
use regex::Regex;

static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut environment = Env::stdlib();
    cel::extensions::strings(&mut environment).unwrap();
    Arc::new(environment)
});

/// The right that the Role gpu-syringe-operator grants.
const RIGHT: &str = "gpu-syringe.dev/actions in gpu-syringe create";

/// Compiled patterns. They are kept because each of the few patterns is used hundreds of times.
static PATTERNS: LazyLock<Mutex<HashMap<String, Regex>>> = LazyLock::new(Mutex::default);

/// Returns whether a part of the text matches the pattern. Go's RE2 and this crate agree on the patterns of the policy.
fn matches(text: &str, pattern: &str) -> bool {
    let mut patterns = PATTERNS.lock().unwrap();
    let known = patterns.entry(pattern.to_owned()).or_insert_with(|| Regex::new(pattern).unwrap());
    known.is_match(text)
}

/// A compiled expression.
pub(crate) struct Expression {
    program: Program,
    /// The variables that the expression uses. No other variables are passed to the expression.
    named: Vec<String>,
}

impl Expression {
    pub(crate) fn compile(source: &str) -> Self {
        let program = ENVIRONMENT.compile(source).unwrap_or_else(|error| panic!("{source}: {error}"));
        let end = |after: &str| after.find(|one: char| !one.is_ascii_alphanumeric()).unwrap_or(after.len());
        let named = source.split("variables.").skip(1).map(|after| after[..end(after)].to_owned()).collect();
        Self { program, named }
    }
}

/// The variables and functions that expressions can use.
pub(crate) struct Scope {
    context: Context<'static, 'static>,
    variables: HashMap<String, cel::Value>,
}

impl Scope {
    /// Creates the scope for a user who may or may not act.
    pub(crate) fn new(may_act: bool) -> Self {
        let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
        context.add_variable_from_value("authorizer", "");
        // Each call of a check adds a word to a text. Access is granted only if the complete text equals `RIGHT`.
        let step = |before: &str, after: &str, word: &str| format!("{before}{after}{word}");
        let text = |context: &mut Context<'static, 'static>, name: &str, after: &'static str| {
            let add = move |This(before): This<Arc<String>>, word: Arc<String>| step(&before, after, &word);
            context.add_function(name, add).unwrap();
        };
        text(&mut context, "group", "");
        text(&mut context, "resource", "/");
        text(&mut context, "namespace", " in ");
        text(&mut context, "check", " ");
        let is_match = |This(text): This<Arc<String>>, pattern: Arc<String>| matches(&text, &pattern);
        context.add_function("matches", is_match).unwrap();
        context.add_function("allowed", move |This(asked): This<Arc<String>>| may_act && *asked == RIGHT).unwrap();
        Self { context, variables: HashMap::new() }
    }

    pub(crate) fn with(mut self, name: &str, value: &serde_json::Value) -> Self {
        self.context.add_variable_from_value(name, value_of(value));
        self
    }

    /// Adds variables in their order: each may use the variables before it. A variable that cannot be evaluated is missing,
    /// and then expressions that use this variable cannot be evaluated either.
    pub(crate) fn with_variables(mut self, variables: &[(String, Expression)]) -> Self {
        for (name, expression) in variables {
            if let Ok(value) = self.evaluate(expression) {
                self.variables.insert(name.clone(), value);
            }
        }
        self
    }

    pub(crate) fn evaluate(&self, expression: &Expression) -> Result<cel::Value, String> {
        let known = expression.named.iter().filter_map(|name| Some((name.clone(), self.variables.get(name)?.clone())));
        let mut context = self.context.new_inner_scope();
        context.add_variable_from_value("variables", known.collect::<HashMap<_, _>>());
        expression.program.execute(&context).map_err(|error| error.to_string())
    }
}

/// Converts JSON to CEL values as an API server does: integers are `int`.
fn value_of(json: &serde_json::Value) -> cel::Value {
    match json {
        serde_json::Value::Null => cel::Value::Null,
        serde_json::Value::Bool(yes) => (*yes).into(),
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(whole) => whole.into(),
            None => number.as_f64().unwrap().into(),
        },
        serde_json::Value::String(text) => text.as_str().into(),
        serde_json::Value::Array(all) => all.iter().map(value_of).collect::<Vec<_>>().into(),
        serde_json::Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| (name.clone(), value_of(value)));
            fields.collect::<HashMap<String, cel::Value>>().into()
        }
    }
}
