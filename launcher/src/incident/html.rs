//! `page`: formats a timeline as one HTML page without scripts and without resources from other hosts. All texts are
//! escaped.

use jiff::Timestamp;
use syringe_core::text::clean_keeping_lines;

use super::entry::{Entry, EntryKind, Gap, GapKind, Lane, NODE_LANE};
use super::{Incident, NodeLanes};
use crate::answer::wire::variant_name::variant_name;
use crate::settings::ArchiveNote;
use crate::terminal::table::second;

const STYLE: &str = include_str!("page.css");

/// Marks of one lane that are closer than this, in percent of the width, are shown as one mark with their number.
const NEAR: f64 = 2.5;
/// Distance between the times on the axis on a wide and on a narrow screen, in percent of the width.
const TICKS: [f64; 2] = [9.0, 30.0];

/// Letters of the marks, by kind of entry.
const LETTERS: [(EntryKind, &str, &str); 9] = [
    (EntryKind::Kernel, "K", "kernel line"),
    (EntryKind::DriverLoad, "D", "driver load"),
    (EntryKind::GpuReset, "R", "GPU reset"),
    (EntryKind::Boot, "B", "boot"),
    (EntryKind::NodeEvent, "N", "node event"),
    (EntryKind::PodEvent, "P", "pod event"),
    (EntryKind::PodCreated, "C", "pod created"),
    (EntryKind::PodStarted, "S", "container started"),
    (EntryKind::PodEnded, "E", "container ended"),
];

/// Positions of times on the page. Distances grow with the logarithm of the time, so that both seconds and hours are
/// visible.
struct Scale(Vec<(Timestamp, f64)>);

impl Scale {
    fn new(mut times: Vec<Timestamp>) -> Self {
        times.sort();
        times.dedup();
        let (mut points, mut width): (Vec<(Timestamp, f64)>, f64) = (Vec::new(), 0.0);
        for time in times {
            let before = points.last().map_or(time, |(before, _)| *before);
            width += (1.0 + time.duration_since(before).as_secs_f64() / 10.0).ln();
            points.push((time, width));
        }
        let width = if width > 0.0 { width } else { 1.0 };
        points.iter_mut().for_each(|(_, at)| *at *= 100.0 / width);
        Self(points)
    }

    /// Returns the position in percent. A time outside of the scale gets the position of the nearest end.
    fn at(&self, time: Timestamp) -> f64 {
        let after = self.0.partition_point(|(point, _)| *point < time);
        match (after.checked_sub(1).and_then(|before| self.0.get(before)), self.0.get(after)) {
            (Some((from, left)), Some((to, right))) => {
                let share = time.duration_since(*from).as_secs_f64() / to.duration_since(*from).as_secs_f64();
                left + (right - left) * share
            }
            (None, point) | (point, None) => point.map_or(0.0, |(_, at)| *at),
        }
    }
}

/// Returns the timeline as an HTML page.
pub(super) fn page(incident: &Incident) -> String {
    let Incident { summary, from, to, context, archive, nodes, entries, gaps, nodes_omitted, .. } = incident;
    let of_gaps = gaps.iter().flat_map(|gap| [gap.from, gap.to]).flatten();
    let runs = nodes.iter().flat_map(|node| &node.lanes).flat_map(|lane| &lane.runs);
    let of_runs = runs.flat_map(|run| [Some(run.from), run.to]).flatten();
    let inner = entries.iter().map(|entry| entry.at).chain(of_gaps).chain(of_runs).map(|time| time.clamp(*from, *to));
    let scale = Scale::new(inner.chain([*from, *to]).collect());
    let title = nodes.iter().map(|node| node.node.as_str()).take(8).collect::<Vec<_>>().join(", ");
    let title = format!("GPU incident: {}{}", escaped(&title), if nodes.len() > 8 { ", …" } else { "" });
    let letters = LETTERS.map(|(_, letter, meaning)| format!("<b>{letter}</b> {meaning}")).join(", ");
    let origin = archive.as_ref().map_or_else(|| format!("context: {context}"), ArchiveNote::line);
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n<p>{}</p>\n<p class=\"dim\">{}</p>\n\
         <p class=\"dim legend\">All times are UTC. Quiet times are drawn shorter than they are. {letters}; a number: several \
         entries.<i class=\"gap\"></i>no log<i class=\"run\"></i>container runs</p>\n",
        escaped(summary),
        escaped(&origin)
    );
    for node in nodes {
        add_node(&mut html, node, incident, &scale);
    }
    html.push_str(
        "<h2>What happened</h2>\n<table><thead><tr><th>time (UTC)<th>node<th>object<th>what</thead><tbody>\n",
    );
    for (number, entry) in entries.iter().enumerate() {
        let Entry { at, node, lane, severity, what, text, count, count_is_lower_bound, .. } = entry;
        let least = if *count_is_lower_bound { "at least " } else { "" };
        let count = count.map(|count| format!(" ({least}{count} times)")).unwrap_or_default();
        let text = text.as_ref().map(|text| format!("<code>{}</code>", escaped(text))).unwrap_or_default();
        let (severity, at) = (variant_name(*severity), second(*at));
        html.push_str(&format!(
            "<tr id=\"e{number}\" class=\"{severity}\"><td><time>{at}</time><td>{}<td>{}<td><span class=\"tag\">{severity}</span> {}{count}{text}\n",
            escaped(node), escaped(lane), escaped(what)
        ));
    }
    html.push_str("</tbody></table>\n");
    html.push_str(
        &nodes_omitted.map(|nodes| format!("<p>… and {nodes} nodes beyond --limit</p>\n")).unwrap_or_default(),
    );
    if !gaps.is_empty() {
        html.push_str("<h2>What is not known</h2>\n<table><thead><tr><th>from<th>to<th>node<th>why</thead><tbody>\n");
    }
    for Gap { node, kind: _, from, to, why } in gaps {
        let time = |time: &Option<Timestamp>| time.map(second).unwrap_or_default();
        let node = node.as_deref().unwrap_or("all nodes");
        html.push_str(&format!("<tr><td>{}<td>{}<td>{}<td>{}\n", time(from), time(to), escaped(node), escaped(why)));
    }
    html.push_str(if gaps.is_empty() { "</body>\n</html>\n" } else { "</tbody></table>\n</body>\n</html>\n" });
    html
}

fn add_node(html: &mut String, node: &NodeLanes, incident: &Incident, scale: &Scale) {
    let NodeLanes { node, verdict, diagnosis, lanes } = node;
    let verdict = verdict.map_or("not read".to_owned(), variant_name);
    let (name, diagnosis) = (escaped(node), diagnosis.as_deref().map(escaped).unwrap_or_default());
    html.push_str(&format!(
        "<h2>{name} <span class=\"tag {verdict}\">{verdict}</span></h2>\n<p class=\"dim\">{diagnosis}</p>\n"
    ));
    html.push_str(&format!(
        "<div class=\"lane axis\"><div class=\"name\"></div><div class=\"track\">{}</div></div>\n",
        axis(scale)
    ));
    let boots = incident.entries.iter().filter(|entry| entry.kind == EntryKind::Boot && entry.node == *node);
    let boots: String =
        boots.map(|boot| format!("<i class=\"boot\" style=\"left:{:.2}%\"></i>", scale.at(boot.at))).collect();
    let of_log = [GapKind::NodeNotRead, GapKind::LogBeginsLater, GapKind::LogMissing, GapKind::BeforeBoot];
    let gaps = incident.gaps.iter().filter(|gap| gap.node.as_ref() == Some(node) && of_log.contains(&gap.kind));
    let gaps: String = gaps.filter_map(|gap| Some(bar("gap", scale, gap.from?, gap.to?, &gap.why))).collect();
    for Lane { name, gpus, runs } in lanes {
        let is_pod = name.starts_with("pod ");
        let gpus = match gpus.is_empty() {
            true => String::new(),
            false => format!(" (GPU {})", gpus.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")),
        };
        let name_of_lane = if name == NODE_LANE { "node" } else { name.strip_prefix("pod ").unwrap_or(name) };
        let runs: String = runs
            .iter()
            .filter(|run| run.to.is_none_or(|to| to >= incident.from))
            .map(|run| bar("run", scale, run.from, run.to.unwrap_or(incident.to), "a container ran"))
            .collect();
        html.push_str(&format!(
            "<div class=\"lane\"><div class=\"name\">{}{gpus}</div><div class=\"track\">{}{runs}{boots}{}</div></div>\n",
            escaped(name_of_lane),
            if is_pod { "" } else { &gaps },
            marks(incident, node, name, scale)
        ));
    }
}

fn bar(class: &str, scale: &Scale, from: Timestamp, to: Timestamp, why: &str) -> String {
    let (left, right) = (scale.at(from), scale.at(to));
    let title = format!("{} to {}: {}", second(from), second(to), escaped(why));
    format!("<i class=\"{class}\" style=\"left:{left:.2}%;width:{:.2}%\" title=\"{title}\"></i>", right - left)
}

/// Returns the marks of a lane. Entries that are close to each other are one mark, with a link to the worst entry.
fn marks(incident: &Incident, node: &str, lane: &str, scale: &Scale) -> String {
    let mut groups: Vec<(f64, Vec<(usize, &Entry)>)> = Vec::new();
    for (number, entry) in
        incident.entries.iter().enumerate().filter(|(_, entry)| entry.node == node && entry.lane == lane)
    {
        let at = scale.at(entry.at);
        match groups.last_mut() {
            Some((first, group)) if at - *first < NEAR => group.push((number, entry)),
            _ => groups.push((at, vec![(number, entry)])),
        }
    }
    let mark = |(at, group): &(f64, Vec<(usize, &Entry)>)| {
        let Some((number, worst)) = group.iter().rev().max_by_key(|(_, entry)| entry.severity) else {
            return String::new();
        };
        let letter = LETTERS.iter().find(|(kind, ..)| *kind == worst.kind).map_or("", |(_, letter, _)| letter);
        let label = if group.len() > 1 { group.len().to_string() } else { letter.to_owned() };
        let lines: Vec<_> =
            group.iter().take(12).map(|(_, entry)| format!("{} {}", second(entry.at), entry.what)).collect();
        format!(
            "<a class=\"mark {}\" style=\"left:clamp(.6rem,{at:.2}%,100% - .6rem)\" href=\"#e{number}\" title=\"{}\">{label}</a>",
            variant_name(worst.severity),
            escaped(&lines.join("\n"))
        )
    };
    groups.iter().map(mark).collect()
}

/// Returns the times above the lanes of a node. A narrow screen shows fewer times.
fn axis(scale: &Scale) -> String {
    let (mut text, mut last, mut day) = (String::new(), [f64::MIN; 2], String::new());
    for (time, at) in scale.0.iter().filter(|(_, at)| *at <= 100.0 - TICKS[0]) {
        if at - last[0] < TICKS[0] {
            continue;
        }
        let is_narrow = at - last[1] >= TICKS[1] && *at <= 100.0 - TICKS[1];
        last = [*at, if is_narrow { *at } else { last[1] }];
        let time = second(*time);
        let (date, clock) = time.split_once('T').unwrap_or((&time, ""));
        let shown = if date == day {
            clock.trim_end_matches('Z').to_owned()
        } else {
            format!("{} {}", &date[5..], clock.trim_end_matches('Z'))
        };
        day = date.to_owned();
        let class = if is_narrow { "" } else { " class=\"x\"" };
        text.push_str(&format!("<b{class} style=\"left:{at:.2}%\">{shown}</b>"));
    }
    text
}

/// Escapes a text for HTML, also for an attribute in double quotes.
fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for character in clean_keeping_lines(text).chars() {
        match character {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            other => html.push(other),
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn seconds_and_hours_have_room_on_the_axis_and_no_time_leaves_it() {
        let begin: Timestamp = "2026-11-21T02:00:00Z".parse().expect("a time");
        let after = |seconds: i64| begin + SignedDuration::from_secs(seconds);
        let scale = Scale::new([0, 36_000, 36_010, 36_020, 86_400].map(after).to_vec());
        assert_eq!((scale.at(begin), scale.at(after(86_400))), (0.0, 100.0));
        assert!(scale.at(after(36_010)) - scale.at(after(36_000)) > 2.0);
        assert!(scale.at(after(18_000)) > 0.0 && scale.at(after(18_000)) < scale.at(after(36_000)));
        assert_eq!((scale.at(after(-5)), scale.at(after(90_000))), (0.0, 100.0));
        assert_eq!(Scale::new(vec![begin]).at(begin), 0.0);
    }

    #[test]
    fn texts_are_escaped() {
        let text = escaped("<script>alert('1')</script>\" onload=\"x\u{1b}[31m\u{202e}&");
        assert!(!text.contains(['<', '>', '"', '\'', '\u{1b}', '\u{202e}']), "{text}");
        assert!(text.contains("&quot;") && text.ends_with("&amp;"), "{text}");
    }
}
