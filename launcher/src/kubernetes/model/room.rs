//! What a pending pod's nodes have of what it requests, in numbers, and what would have to change.
//!
//! Over the GPU nodes alone, so that it speaks of pods that request GPUs. Only what the scheduler's own message names counts:
//! a pod that waits for a volume does not lack GPUs.

use syringe_core::explanation::Room;

use crate::kubernetes::model::placement::{Candidate, Free, Obstacle};
use crate::kubernetes::model::requests::{self, Amounts};
use crate::kubernetes::model::resources::is_gpu_resource;

/// Changes that are named.
const MAX_CHANGES: usize = 4;

/// What a pod that requests `wanted` lacks on these nodes; `said` is the scheduler's message. `None` where the numbers of the
/// nodes do not explain that it waits.
pub(crate) fn of(candidates: &[Candidate], wanted: &Amounts, said: Option<&str>) -> Option<Room> {
    if candidates.is_empty() || !wanted.keys().any(|resource| is_gpu_resource(resource)) {
        return None;
    }
    let open: Vec<&Candidate> = candidates.iter().filter(|candidate| candidate.obstacles.is_empty()).collect();
    let resource = scarce(&open, wanted, said).or_else(|| {
        // No node is open to it at all: then GPUs are what it would find on the others.
        let gpus = wanted.keys().find(|resource| is_gpu_resource(resource));
        gpus.filter(|_| open.is_empty() && names_obstacles(said))
    })?;
    let amount = *wanted.get(resource)?;
    let room = Nodes { candidates, open, resource, amount, wanted };
    Some(Room { shortage: room.shortage(), changes: room.changes() })
}

/// Whether the scheduler says that nodes are closed to the pod, or says nothing.
fn names_obstacles(said: Option<&str>) -> bool {
    let words = ["unschedulable", "taint", "node affinity/selector", "not ready", "NotReady"];
    said.is_none_or(|said| words.iter().any(|word| said.contains(word)))
}

/// The resource that the scheduler finds too little of, GPUs before others.
fn scarce<'w>(open: &[&Candidate], wanted: &'w Amounts, said: Option<&str>) -> Option<&'w String> {
    let short = |resource: &&String| {
        let amount = wanted.get(*resource).copied().unwrap_or(0);
        let named = said.is_none_or(|said| said.contains(&format!("Insufficient {resource}")));
        named && open.iter().any(|candidate| free(candidate, resource).free < amount)
    };
    let gpus_first = wanted.keys().filter(|resource| is_gpu_resource(resource));
    gpus_first.chain(wanted.keys()).find(short)
}

fn free(candidate: &Candidate, resource: &str) -> Free {
    candidate.free.get(resource).copied().unwrap_or_default()
}

/// The nodes, as far as one resource is concerned.
struct Nodes<'a> {
    candidates: &'a [Candidate],
    /// Those that nothing but resources keeps the pod from.
    open: Vec<&'a Candidate>,
    resource: &'a String,
    amount: u128,
    wanted: &'a Amounts,
}

impl Nodes<'_> {
    /// `asks for 4 nvidia.com/gpu on one node; the most that any GPU node has free is 2, on gpu-7; 3 nodes are full, 2 cordoned`.
    fn shortage(&self) -> String {
        let mut parts = vec![format!("asks for {} on one node", requests::in_words(self.resource, self.amount))];
        match self.roomiest() {
            Some(best) if free(best, self.resource).free > 0 => {
                let most = requests::number(self.resource, free(best, self.resource).free);
                parts.push(format!("the most that any GPU node has free is {most}, on {}", best.node));
            }
            Some(_) => parts.push("no GPU node that is open to it has any free".to_owned()),
            None => parts.push("no GPU node is open to it".to_owned()),
        }
        let counts = self.counts();
        if !counts.is_empty() {
            parts.push(counts.join(", "));
        }
        parts.join("; ")
    }

    /// The open node with most of the resource free; of several the first by name.
    fn roomiest(&self) -> Option<&Candidate> {
        let order =
            |candidate: &&&Candidate| (free(candidate, self.resource).free, std::cmp::Reverse(candidate.node.clone()));
        self.open.iter().max_by_key(order).copied()
    }

    /// How many nodes are out of the question, by reason: a node counts once, for its first.
    fn counts(&self) -> Vec<String> {
        let first = |candidate: &&Candidate| candidate.obstacles.first().cloned();
        let closed: Vec<Obstacle> = self.candidates.iter().filter_map(|candidate| first(&candidate)).collect();
        let number = |is: fn(&Obstacle) -> bool| closed.iter().filter(|obstacle| is(obstacle)).count();
        let full = self.open.iter().filter(|candidate| free(candidate, self.resource).free == 0).count();
        let counted = [
            (full, "full"),
            (number(|obstacle| *obstacle == Obstacle::Cordoned), "cordoned"),
            (number(|obstacle| *obstacle == Obstacle::NotReady), "not Ready"),
            (number(|obstacle| matches!(obstacle, Obstacle::Taint(_))), "tainted"),
            (number(|obstacle| matches!(obstacle, Obstacle::Label(_) | Obstacle::Affinity)), "not selected"),
        ];
        let mut words: Vec<String> =
            counted.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")).collect();
        if let Some(first) = words.first_mut()
            && let Some((count, word)) = first.split_once(' ')
        {
            let nodes = if count == "1" { "node is" } else { "nodes are" };
            *first = format!("{count} {nodes} {word}");
        }
        words
    }

    /// What would let the pod start, each on its own.
    fn changes(&self) -> Vec<String> {
        let largest = self.candidates.iter().map(|candidate| free(candidate, self.resource).allocatable).max();
        let largest = largest.unwrap_or(0);
        if largest < self.amount {
            let most = requests::in_words(self.resource, largest);
            return vec![format!("ask for at most {most} on one node: no GPU node has more")];
        }
        let mut changes: Vec<String> = self.free_more().into_iter().collect();
        changes.extend(self.lift_obstacles());
        let most = self.roomiest().map_or(0, |best| free(best, self.resource).free);
        if most > 0 {
            changes.push(format!("ask for at most {}", requests::in_words(self.resource, most)));
        }
        changes.truncate(MAX_CHANGES);
        changes
    }

    /// On the open node that lacks least, of those that are large enough.
    fn free_more(&self) -> Option<String> {
        let enough = |candidate: &&&Candidate| free(candidate, self.resource).allocatable >= self.amount;
        let order =
            |candidate: &&&Candidate| (free(candidate, self.resource).free, std::cmp::Reverse(candidate.node.clone()));
        let best = self.open.iter().filter(enough).max_by_key(order)?;
        let lacking = self.amount.saturating_sub(free(best, self.resource).free);
        let holder = best.held_by.first().map(|holder| format!(" (used by {holder})")).unwrap_or_default();
        let lacking = requests::in_words(self.resource, lacking);
        (!best.held_by.is_empty()).then(|| format!("free {lacking} on {}{holder}", best.node))
    }

    /// For each kind of obstacle, the first node that has room and nothing else against it.
    fn lift_obstacles(&self) -> Vec<String> {
        let has_room = |candidate: &&Candidate| {
            self.wanted.iter().all(|(resource, amount)| free(candidate, resource).free >= *amount)
        };
        let mut lifted: Vec<(std::mem::Discriminant<Obstacle>, String)> = Vec::new();
        for candidate in self.candidates.iter().filter(has_room) {
            let [obstacle] = candidate.obstacles.as_slice() else { continue };
            let kind = std::mem::discriminant(obstacle);
            if !lifted.iter().any(|(known, _)| *known == kind) {
                let free = requests::number(self.resource, free(candidate, self.resource).free);
                let node = &candidate.node;
                lifted.push((kind, format!("{}, which has {free} free", remedy(obstacle, node))));
            }
        }
        lifted.into_iter().map(|(_, change)| change).collect()
    }
}

/// What would open a node to the pod.
fn remedy(obstacle: &Obstacle, node: &str) -> String {
    match obstacle {
        Obstacle::NotReady => format!("bring {node} back (not Ready)"),
        Obstacle::Cordoned => format!("uncordon {node}"),
        Obstacle::Taint(taint) => format!("tolerate the taint {taint} of {node}"),
        Obstacle::Label(label) => format!("give the label {label} to {node}"),
        Obstacle::Affinity => format!("let its node affinity admit {node}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GPU: &str = "nvidia.com/gpu";

    fn node(name: &str, free: u128, obstacles: Vec<Obstacle>) -> Candidate {
        let held_by = if free < 8 { vec![format!("ml/train-0 ({} {GPU})", 8 - free)] } else { Vec::new() };
        let free = Free { free: free * 1000, allocatable: 8000 };
        let free = std::collections::BTreeMap::from([(GPU.to_owned(), free)]);
        Candidate { node: name.into(), against: Vec::new(), held_by, obstacles, free }
    }

    fn asks(gpus: u128) -> Amounts {
        Amounts::from([(GPU.to_owned(), gpus * 1000)])
    }

    const SHORT: &str = "0/6 nodes are available: 4 Insufficient nvidia.com/gpu, 2 node(s) were unschedulable.";

    #[test]
    fn what_is_free_and_what_would_help_is_told_in_numbers() {
        let mut nodes = vec![node("gpu-7", 2, Vec::new()), node("gpu-8", 8, vec![Obstacle::Cordoned])];
        nodes.extend(["gpu-1", "gpu-2", "gpu-3"].map(|name| node(name, 0, Vec::new())));
        nodes.push(node("gpu-9", 0, vec![Obstacle::Cordoned]));
        let room = of(&nodes, &asks(4), Some(SHORT)).expect("a shortage");
        let words = "asks for 4 nvidia.com/gpu on one node; the most that any GPU node has free is 2, on gpu-7; 3 nodes are \
                     full, 2 cordoned";
        assert_eq!(room.shortage, words);
        let changes = [
            "free 2 nvidia.com/gpu on gpu-7 (used by ml/train-0 (6 nvidia.com/gpu))",
            "uncordon gpu-8, which has 8 free",
            "ask for at most 2 nvidia.com/gpu",
        ];
        assert_eq!(room.changes, changes);
    }

    #[test]
    fn more_than_any_node_has_cannot_be_freed() {
        let room = of(&[node("gpu-1", 4, Vec::new())], &asks(16), Some(SHORT)).expect("a shortage");
        assert_eq!(room.changes, ["ask for at most 8 nvidia.com/gpu on one node: no GPU node has more"]);
    }

    #[test]
    fn nodes_that_are_closed_are_counted_by_their_reason() {
        let taint = || Obstacle::Taint("team=vision:NoSchedule".into());
        let nodes = [
            node("gpu-1", 8, vec![taint()]),
            node("gpu-2", 8, vec![Obstacle::NotReady]),
            node("gpu-3", 8, vec![Obstacle::Label("zone=b".into())]),
        ];
        let said = "0/3 nodes are available: 1 node(s) had untolerated taint {team: vision}, 2 node(s) were not ready.";
        let room = of(&nodes, &asks(4), Some(said)).expect("closed nodes");
        let words = "asks for 4 nvidia.com/gpu on one node; no GPU node is open to it; 1 node is not Ready, 1 tainted, 1 not \
                     selected";
        assert_eq!(room.shortage, words);
        assert_eq!(room.changes[0], "tolerate the taint team=vision:NoSchedule of gpu-1, which has 8 free");
        assert_eq!(room.changes.len(), 3);
    }

    #[test]
    fn what_the_scheduler_does_not_name_is_not_claimed() {
        let nodes = [node("gpu-1", 2, Vec::new())];
        let volume = "0/1 nodes are available: 1 node(s) had volume node affinity conflict.";
        assert_eq!(of(&nodes, &asks(4), Some(volume)), None);
        assert!(of(&nodes, &asks(4), Some(SHORT)).is_some());
        let memory = Amounts::from([("memory".to_owned(), 1000)]);
        assert_eq!(of(&nodes, &memory, Some("1 Insufficient memory")), None, "it may run on nodes that are not listed");
        assert_eq!(of(&[node("gpu-1", 8, Vec::new())], &asks(4), Some(SHORT)), None, "there is room since");
    }
}
