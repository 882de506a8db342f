use serde_json::Value;
use std::collections::BTreeSet;
use syringe_core::report::Report;

fn diff(old: &Value, new: &Value, place: &str, out: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<_> = a.keys().chain(b.keys()).collect();
            for k in keys {
                let n = Value::Null;
                diff(a.get(k).unwrap_or(&n), b.get(k).unwrap_or(&n), &format!("{place}.{k}"), out);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (x, y)) in a.iter().zip(b).enumerate() {
                diff(x, y, &format!("{place}[{i}]"), out);
            }
        }
        _ if old == new => {}
        _ => out.push(format!("{place}:\n     old {old}\n     new {new}")),
    }
}
fn plain(report: &Report) -> Value {
    let mut v = serde_json::to_value(report).unwrap();
    for s in v["sections"].as_object_mut().unwrap().values_mut() {
        if s.get("data").is_some() {
            syringe_core::common_values::restore(&mut s["data"]);
        }
    }
    v
}
#[test]
fn equal() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut names = BTreeSet::new();
    let mut bad = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some(name) = name.strip_suffix(".json").filter(|n| !n.ends_with(".expect")) else { continue };
        names.insert(name.to_owned());
        let Some(s) = scenarios::named(name) else {
            println!("MISSING {name}");
            bad += 1;
            continue;
        };
        let old: Report =
            serde_json::from_str(&std::fs::read_to_string(folder.join(format!("{name}.json"))).unwrap()).unwrap();
        let new = match std::panic::catch_unwind(|| s.report()) {
            Ok(r) => r,
            Err(_) => {
                println!("PANIC {name}");
                bad += 1;
                continue;
            }
        };
        let mut out = vec![];
        if old != new {
            diff(&plain(&old), &plain(&new), "", &mut out);
            assert!(!out.is_empty(), "{name}");
        }
        let e: Value =
            serde_json::from_str(&std::fs::read_to_string(folder.join(format!("{name}.expect.json"))).unwrap())
                .unwrap();
        let x = &s.expected;
        let set = |v: &Value| {
            v.as_array().cloned().unwrap_or_default().iter().map(|v| v.to_string()).collect::<BTreeSet<_>>()
        };
        let strs = |v: &[&str]| v.iter().map(|s| Value::from(*s).to_string()).collect::<BTreeSet<_>>();
        diff(&e["verdict"], &Value::from(x.verdict), "verdict", &mut out);
        diff(&e["health"], &Value::from(x.health), "health", &mut out);
        if e.get("more").and_then(Value::as_bool).unwrap_or(false) != x.more {
            out.push("more".into());
        }
        for (k, v) in [("must_not", &x.must_not), ("summary", &x.summary), ("unknown", &x.unknown)] {
            if set(&e[k]) != strs(v) {
                out.push(format!("{k}: {:?} {:?}", set(&e[k]), strs(v)));
            }
        }
        let must: Vec<Value> = x
            .must
            .iter()
            .map(|m| {
                let mut o = serde_json::json!({"id": m.id});
                if let Some(g) = m.gpu {
                    o["gpu"] = g.into();
                }
                if let Some(g) = m.severity {
                    o["severity"] = serde_json::to_value(g).unwrap();
                }
                if !m.evidence.is_empty() {
                    o["evidence"] = m.evidence.clone().into();
                }
                o
            })
            .collect();
        let old_must: Vec<_> = e["must"].as_array().cloned().unwrap_or_default();
        diff(&Value::from(old_must), &Value::from(must), "must", &mut out);
        let c: syringe_core::facts::kubernetes::node::KubernetesFacts = serde_json::from_value(e.get("cluster").cloned().unwrap_or(serde_json::json!({}))).unwrap();
        if c != x.cluster { diff(&serde_json::to_value(c).unwrap(), &serde_json::to_value(&x.cluster).unwrap(), "cluster", &mut out); }
        if !out.is_empty() {
            bad += 1;
            println!("## {name}");
            for o in &out[..out.len().min(12)] {
                println!("   {o}");
            }
        }
    }
    for s in scenarios::all() {
        assert!(names.contains(s.name), "{}", s.name);
    }
    assert_eq!(scenarios::all().count(), names.len());
    println!("{} of {} differ", bad, names.len());
    assert_eq!(bad, 0);
}

