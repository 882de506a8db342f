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
fn no_null(v: Value) -> Value {
    match v {
        Value::Object(m) => {
            Value::Object(m.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, no_null(v))).collect())
        }
        Value::Array(a) => Value::Array(a.into_iter().map(no_null).collect()),
        v => v,
    }
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
        diff(&e["health"], &serde_json::to_value(x.health).unwrap(), "health", &mut out);
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
                    o["severity"] = g.into();
                }
                if !m.evidence.is_empty() {
                    o["evidence"] = m.evidence.clone().into();
                }
                o
            })
            .collect();
        let old_must: Vec<_> = e["must"].as_array().cloned().unwrap_or_default();
        diff(&Value::from(old_must), &Value::from(must), "must", &mut out);
        let c = e.get("cluster").cloned().unwrap_or(serde_json::json!({}));
        diff(&no_null(c), &no_null(x.cluster.clone()), "cluster", &mut out);
        let facts: syringe_core::diagnosis::KubernetesFacts = serde_json::from_value(x.cluster.clone()).unwrap();
        let d = |r: Report| serde_json::to_string(&syringe_core::diagnosis::diagnose(&replayed(r), &facts)).unwrap();
        if name == "node-just-booted" {
            println!("{}\n{}", d(old.clone()), d(new.clone()));
        }
        if !out.is_empty() && d(old) == d(new) {
            println!("## {name}: the same diagnosis");
            out.truncate(2);
        }
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

fn replayed(mut report: Report) -> Report {
    use syringe_core::xid::events::{Clock, EventLog, Options};
    let host = syringe_core::report::Section::data_of(&report.sections.host);
    let uptime = host.and_then(|host| host.uptime_seconds).and_then(|uptime| i64::try_from(uptime).ok());
    let boot = report.taken_at.zip(uptime).map(|(now, uptime)| now - jiff::SignedDuration::from_secs(uptime));
    let options = Options { running_boot_id: report.boot_id.clone(), now: report.taken_at, ..Options::default() };
    let mut log = EventLog::new(boot.map(|boot_wall_time| Clock { boot_wall_time }), options);
    log.source("facts file");
    report.kernel_log.iter().for_each(|record| log.push_line(record));
    let mut log = log.finish();
    syringe_core::xid::join_gpus(
        &mut log,
        syringe_core::xid::LogOrigin::ThisNode,
        &syringe_core::diagnosis::gpu_addresses(&report),
        &[],
    );
    report.sections.xid = Some(syringe_core::report::Section::read(log, Vec::new()));
    report
}
