//! The type `Policies`: evaluates ValidatingAdmissionPolicies with their bindings as an API server does.
//! `Request`, `Denial`: a request to the API server, and its rejection.
//!
//! The code follows `k8s.io/apiserver/pkg/admission/plugin/policy`. Features that the shipped policies do not use lead
//! to a panic, so that they are not silently ignored.

use std::collections::BTreeMap;

use k8s_openapi::api::admissionregistration::v1::{
    MatchResources, NamedRuleWithOperations, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
    ValidatingAdmissionPolicySpec,
};
use serde_json::{Value, json};

use crate::expressions::{Expression, Scope};

/// A request in the form in which admission receives it, after defaulting and mutation.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) operation: &'static str,
    /// Name of the subresource; empty for the pod itself.
    pub(crate) subresource: String,
    pub(crate) namespace: String,
    pub(crate) object: Value,
    /// Whether the user may `create actions.gpu-syringe.dev` in the namespace.
    pub(crate) may_act: bool,
}

/// The policies of a cluster.
pub(crate) struct Policies {
    policies: Vec<Policy>,
    bindings: Vec<ValidatingAdmissionPolicyBinding>,
}

struct Policy {
    name: String,
    spec: ValidatingAdmissionPolicySpec,
    variables: Vec<(String, Expression)>,
    validations: Vec<Validation>,
}

struct Validation {
    expression: Expression,
    message: String,
    words: Option<Expression>,
}

/// A rejection, with the message of the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Denial {
    pub(crate) policy: String,
    /// Index of the validation in the policy; `None` if no validation was evaluated.
    pub(crate) validation: Option<usize>,
    pub(crate) message: String,
}

impl Policies {
    pub(crate) fn new(
        policies: Vec<ValidatingAdmissionPolicy>,
        bindings: Vec<ValidatingAdmissionPolicyBinding>,
    ) -> Self {
        let policies = policies.into_iter().map(Policy::compile).collect();
        Self { policies, bindings }
    }

    /// Returns all validations: policy, index in the policy, message.
    pub(crate) fn validations(&self) -> Vec<(String, usize, String)> {
        let of = |policy: &Policy| {
            let named = |(place, one): (usize, &Validation)| (policy.name.clone(), place, one.message.clone());
            policy.validations.iter().enumerate().map(named).collect::<Vec<_>>()
        };
        self.policies.iter().flat_map(of).collect()
    }

    /// Returns the rejections of a request. If there are none, the request is admitted.
    pub(crate) fn review(&self, request: &Request) -> Vec<Denial> {
        let mut denials = Vec::new();
        for binding in &self.bindings {
            let spec = binding.spec.as_ref().unwrap();
            let policy = self.policies.iter().find(|policy| Some(&policy.name) == spec.policy_name.as_ref()).unwrap();
            assert_eq!(spec.validation_actions.as_deref().unwrap(), ["Deny"], "other actions do not reject requests");
            let constraints = policy.spec.match_constraints.as_ref().unwrap();
            let everything = MatchResources::default();
            let narrowed = spec.match_resources.as_ref().unwrap_or(&everything);
            if !matches(constraints, request, false) || !matches(narrowed, request, true) {
                continue;
            }
            assert!(spec.param_ref.is_none(), "parameters are not supported");
            let denial = |(validation, message)| Denial { policy: policy.name.clone(), validation, message };
            denials.extend(policy.validate(request).into_iter().map(denial));
        }
        denials
    }
}

impl Policy {
    fn compile(policy: ValidatingAdmissionPolicy) -> Self {
        let spec = policy.spec.unwrap();
        assert!(spec.match_conditions.is_none(), "match conditions are not supported");
        assert!(spec.param_kind.is_none(), "parameters are not supported");
        assert!(spec.audit_annotations.is_none(), "audit annotations are not supported");
        let variables = spec.variables.iter().flatten();
        let variables = variables.map(|one| (one.name.clone(), Expression::compile(&one.expression))).collect();
        let validation = |one: &k8s_openapi::api::admissionregistration::v1::Validation| Validation {
            expression: Expression::compile(&one.expression),
            message: one.message.clone().unwrap_or_else(|| format!("failed expression: {}", one.expression.trim())),
            words: one.message_expression.as_deref().map(Expression::compile),
        };
        let validations = spec.validations.iter().flatten().map(validation).collect();
        Self { name: policy.metadata.name.unwrap(), variables, validations, spec }
    }

    /// Returns the messages of failed validations. With `failurePolicy: Fail`, an evaluation error is a failure.
    fn validate(&self, request: &Request) -> Vec<(Option<usize>, String)> {
        let fails = self.spec.failure_policy.as_deref().unwrap_or("Fail") == "Fail";
        let scope = Scope::new(request.may_act)
            .with("object", &request.object)
            .with("oldObject", &Value::Null)
            .with("request", &as_seen(request));
        let scope = scope.with_variables(&self.variables);
        let said = |validation: &Validation| match scope.evaluate(&validation.expression) {
            Ok(cel::Value::Bool(true)) => None,
            Ok(cel::Value::Bool(false)) => Some(match validation.words.as_ref().map(|words| scope.evaluate(words)) {
                Some(Ok(cel::Value::String(words))) if !words.trim().is_empty() => words.to_string(),
                // An API server also uses this message if the message expression fails.
                _ => validation.message.clone(),
            }),
            Ok(other) => panic!("'{}' does not return true or false: {other:?}", validation.message),
            Err(why) => fails.then(|| format!("expression resulted in error: {why}")),
        };
        let placed = |(place, one): (usize, &Validation)| Some((Some(place), said(one)?));
        self.validations.iter().enumerate().filter_map(placed).collect()
    }
}

/// Returns the variable `request` of expressions.
fn as_seen(request: &Request) -> Value {
    let mut seen = json!({
        "operation": request.operation, "namespace": request.namespace,
        "resource": {"group": "", "version": "v1", "resource": "pods"},
    });
    if !request.subresource.is_empty() {
        seen["subResource"] = request.subresource.clone().into();
    }
    seen
}

/// Returns whether a policy or binding applies to a request. A binding may omit the rules, but a policy may not.
fn matches(resources: &MatchResources, request: &Request, may_lack_rules: bool) -> bool {
    assert!(resources.object_selector.is_none(), "object selectors are not supported");
    assert!(resources.exclude_resource_rules.is_none(), "excluded rules are not supported");
    let in_namespace = resources.namespace_selector.as_ref().is_none_or(|selector| {
        assert!(selector.match_expressions.is_none(), "expressions in selectors are not supported");
        // `kubernetes.io/metadata.name` is the only label that every namespace has.
        let labels = BTreeMap::from([("kubernetes.io/metadata.name", request.namespace.as_str())]);
        selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key.as_str()) == Some(&value.as_str()))
    });
    let by_rule = match &resources.resource_rules {
        Some(rules) => rules.iter().any(|rule| is_ruled(rule, request)),
        None => may_lack_rules,
    };
    in_namespace && by_rule
}

fn is_ruled(rule: &NamedRuleWithOperations, request: &Request) -> bool {
    let has = |list: &Option<Vec<String>>, value: &str| list.iter().flatten().any(|one| one == "*" || one == value);
    assert!(rule.resource_names.is_none() && rule.scope.as_deref().is_none_or(|scope| scope == "*"));
    // "pods/*" also includes the pods, because the API server compares resource and subresource separately.
    let is_resource = |name: &String| {
        let (resource, subresource) = name.split_once('/').unwrap_or((name, ""));
        matches!(resource, "*" | "pods") && (subresource == "*" || subresource == request.subresource)
    };
    has(&rule.api_groups, "")
        && has(&rule.api_versions, "v1")
        && has(&rule.operations, request.operation)
        && rule.resources.iter().flatten().any(is_resource)
}
