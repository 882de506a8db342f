//! `find`: explains why a Pending pod does not fit on any GPU node, and lists the changes that would help.
//! The requests of the pod are compared with the free resources of the nodes. `uncordon`: the change for a cordoned
//! node.
//!
//! The comparison is only for pods that request GPUs, because only GPU nodes are read. Only resources in the
//! scheduler's message are compared: a pod that is waiting for a volume does not lack GPUs.

use std::cmp::Reverse;

use syringe_core::facts::kubernetes::pod::{CapacityShortage, Change, CheckBefore};

use crate::objects::gpu_resource_names::is_gpu_resource;
use crate::objects::pod_requests;
use crate::objects::pod_requests::MilliValues;
use crate::objects::scheduler_filters::{Candidate, FreeAmount, RejectionReason};

/// Maximum number of nodes with free resources that are listed.
const MAX_NODES: usize = 4;
/// Maximum number of suggested changes.
const MAX_CHANGES: usize = 4;

/// Returns which of the requested resources (`wanted`) these nodes lack. Returns `None` if the numbers do not explain
/// why the pod is Pending.
pub fn find(
    candidates: &[Candidate],
    wanted: &MilliValues,
    scheduler_message: Option<&str>,
) -> Option<CapacityShortage> {
    let gpus = || wanted.keys().filter(|resource| is_gpu_resource(resource));
    if candidates.is_empty() || gpus().next().is_none() {
        return None;
    }
    let open: Vec<&Candidate> = candidates.iter().filter(|candidate| candidate.rejections.is_empty()).collect();
    let mut scarce = scarce(&open, wanted, scheduler_message);
    if scarce.is_empty() && open.is_empty() && names_rejections(scheduler_message) {
        // All nodes are excluded for reasons other than resources, so the free GPUs of these nodes are shown.
        scarce.extend(gpus().next());
    }
    let nodes = Nodes { candidates, open, scarce, wanted };
    if nodes.scarce.is_empty() {
        // The scheduler excludes this node for a reason that is not checked here, or the resources have just become
        // free.
        let node = scheduler_message.filter(|message| message.contains("nodes are available"));
        let node = node.and_then(|_| nodes.has_room())?;
        let shortage = format!("{node} has enough free resources for the pod");
        return Some(CapacityShortage { shortage, has_room: Some(node), ..CapacityShortage::default() });
    }
    Some(nodes.room())
}

/// Returns whether the scheduler's message gives reasons other than resources, or is missing.
fn names_rejections(scheduler_message: Option<&str>) -> bool {
    let words = ["unschedulable", "taint", "node affinity/selector", "not ready", "NotReady"];
    scheduler_message.is_none_or(|scheduler_message| words.iter().any(|word| scheduler_message.contains(word)))
}

/// Returns the resources that are insufficient according to the scheduler, GPUs first.
fn scarce<'w>(open: &[&Candidate], wanted: &'w MilliValues, scheduler_message: Option<&str>) -> Vec<&'w String> {
    let short = |resource: &&String| {
        let amount = amount(wanted, resource);
        let named = scheduler_message
            .is_none_or(|scheduler_message| scheduler_message.contains(&format!("Insufficient {resource}")));
        named && open.iter().any(|candidate| free(candidate, resource).free < amount)
    };
    let mut scarce: Vec<&String> = wanted.keys().filter(short).collect();
    scarce.sort_by_key(|resource| !is_gpu_resource(resource));
    scarce
}

fn amount(wanted: &MilliValues, resource: &str) -> u128 {
    wanted.get(resource).copied().unwrap_or(0)
}

fn free(candidate: &Candidate, resource: &str) -> FreeAmount {
    candidate.free.get(resource).copied().unwrap_or_default()
}

/// Formats amounts, for example `4 nvidia.com/gpu and 64 cpu`.
fn listed(amounts: impl Iterator<Item = (String, u128)>) -> String {
    amounts.map(|(resource, amount)| pod_requests::quantity_text(&resource, amount)).collect::<Vec<_>>().join(" and ")
}

/// The nodes, and the resources that are insufficient on them.
struct Nodes<'a> {
    candidates: &'a [Candidate],
    /// Nodes that are excluded only because of insufficient resources.
    open: Vec<&'a Candidate>,
    /// Insufficient resources. Nodes are counted by the first of these resources.
    scarce: Vec<&'a String>,
    wanted: &'a MilliValues,
}

impl Nodes<'_> {
    fn room(&self) -> CapacityShortage {
        let offered = |resource: &&&String| self.largest(resource) > 0;
        if let Some(resource) = self.scarce.iter().find(|resource| !offered(resource)) {
            return self.not_offered(resource);
        }
        let shortage = self.shortage();
        let too_large: Vec<_> =
            self.scarce.iter().filter(|resource| self.largest(resource) < amount(self.wanted, resource)).collect();
        let changes = self.changes();
        if self.selected().next().is_none() && (!too_large.is_empty() || changes.is_empty()) {
            return self.none_selected(&too_large);
        }
        // A GPU that is not allocatable now can be allocatable again after a repair.
        let repairable = self.repairable(&too_large);
        let never_fits = !too_large.is_empty() && repairable.is_none();
        let at_most = too_large.iter().map(|resource| {
            let most = pod_requests::quantity_text(resource, self.largest(resource));
            format!("request at most {most} in one pod: no GPU node has more")
        });
        let mut changes = match &repairable {
            Some(node) => vec![repair_gpus(node)],
            None if never_fits => at_most.map(Change::from).collect(),
            None => changes,
        };
        let exceeded = too_large.iter().map(|resource| {
            let wanted = pod_requests::quantity_text(resource, amount(self.wanted, resource));
            format!("{wanted} (most: {})", pod_requests::amount_text(resource, self.largest(resource)))
        });
        let exceeded: Vec<_> = exceeded.collect();
        let selected = self.larger_than_selected();
        changes.extend(selected.iter().map(|most| Change::from(format!("request at most {most} in one pod"))));
        let tied = selected
            .map(|most| format!("the largest node that its nodeSelector or affinity allows has {most}"))
            .or_else(|| self.tied_to());
        let (excluded_node, excluded) = if tied.is_none() { self.excluded() } else { None }.unzip();
        let lacks_other = self.lacks_other();
        CapacityShortage {
            problem: match &repairable {
                Some(node) => Some(format!(
                    "no node has {}; {node} has enough, but not all are allocatable",
                    exceeded.join(", or ")
                )),
                None if never_fits => Some(format!("no node has {}", exceeded.join(", or "))),
                None => tied.or_else(|| lacks_other.clone()),
            },
            shortage,
            changes,
            needs_all: never_fits,
            never_fits,
            fits_now: Some(self.fits_now()),
            has_room: self.has_room(),
            excluded,
            excluded_node: excluded_node.flatten(),
            unhealthy: self.unhealthy(),
            unhealthy_node: self.unhealthy_node(),
            all_excluded: self.open.is_empty(),
            has_enough_gpus: lacks_other.is_some(),
            too_few: self.too_few(),
            gpus_of_cluster: self.gpus_of_cluster(),
        }
    }

    /// Returns a node whose capacity is sufficient for all these resources, although fewer are allocatable.
    fn repairable(&self, too_large: &[&&String]) -> Option<String> {
        let has_enough = |candidate: &&Candidate| {
            let of_gpus = too_large.iter().all(|resource| is_gpu_resource(resource));
            of_gpus
                && too_large.iter().all(|resource| free(candidate, resource).capacity >= amount(self.wanted, resource))
        };
        let found = self.candidates.iter().find(has_enough).filter(|_| !too_large.is_empty());
        found.map(|candidate| candidate.node.clone())
    }

    /// Returns how many GPUs of the requested resources each node has but does not advertise. The device plugin reports
    /// these GPUs as unhealthy, or does not run.
    fn unhealthy(&self) -> Option<String> {
        let gpus = || self.wanted.keys().filter(|resource| is_gpu_resource(resource));
        let of_node = |candidate: &Candidate| {
            let lost = gpus().map(|resource| (resource, free(candidate, resource)));
            let lost = lost.filter(|(_, amount)| amount.allocatable < amount.capacity).map(|(resource, amount)| {
                let missing = pod_requests::amount_text(resource, amount.capacity - amount.allocatable);
                let all = pod_requests::quantity_text(resource, amount.capacity);
                format!("{missing} of {all} of {} not allocatable", candidate.node)
            });
            lost.collect::<Vec<_>>()
        };
        let silent = |candidate: &&Candidate| candidate.offers.is_empty();
        let silent =
            self.candidates.iter().filter(silent).map(|candidate| format!("{} offers no GPU resource", candidate.node));
        let all: Vec<String> = self.candidates.iter().flat_map(of_node).chain(silent).take(MAX_NODES).collect();
        (!all.is_empty()).then(|| all.join(", "))
    }

    /// Returns the node of the first text of [`Self::unhealthy`].
    fn unhealthy_node(&self) -> Option<String> {
        let is_short = |candidate: &&Candidate| {
            let mut gpus = self.wanted.keys().filter(|resource| is_gpu_resource(resource));
            gpus.any(|resource| free(candidate, resource).allocatable < free(candidate, resource).capacity)
        };
        let first = self.candidates.iter().find(is_short);
        let first = first.or_else(|| self.candidates.iter().find(|candidate| candidate.offers.is_empty()));
        first.map(|candidate| candidate.node.clone())
    }

    /// Returns the node that has enough GPUs free and lacks the fewest other resources, with these resources.
    fn lacks_other(&self) -> Option<String> {
        let lacking = |candidate: &Candidate| -> Vec<String> {
            let short = self.wanted.iter().filter(|(resource, wanted)| free(candidate, resource).free < **wanted);
            short.map(|(resource, _)| resource.clone()).collect()
        };
        let only_others = |candidate: &&Candidate| !lacking(candidate).iter().any(|resource| is_gpu_resource(resource));
        let open = self.open.iter().copied().filter(only_others);
        let best = open.min_by_key(|candidate| (lacking(candidate).len(), candidate.node.clone()))?;
        let in_words = |resource: &String| {
            let has = free(best, resource);
            if has.allocatable == 0 {
                return format!("does not offer {resource}");
            }
            let all = pod_requests::amount_text(resource, amount(self.wanted, resource));
            format!("has only {} of the requested {all}", pod_requests::quantity_text(resource, has.free))
        };
        let short: Vec<String> = lacking(best).iter().map(in_words).collect();
        let node = &best.node;
        (!short.is_empty()).then(|| format!("{node} has enough GPUs free, but {}", short.join(" and ")))
    }

    /// Returns that no eligible node has enough of the first insufficient resource, with the node that has most.
    fn too_few(&self) -> Option<String> {
        let resource = self.scarce.first()?;
        let amount_on = |candidate: &Candidate| free(candidate, resource).free;
        let best = self.open.iter().min_by_key(|candidate| (Reverse(amount_on(candidate)), &candidate.node))?;
        let wanted = amount(self.wanted, resource);
        let most = amount_on(best);
        (most < wanted).then(|| {
            let wanted = pod_requests::quantity_text(resource, wanted);
            match most {
                0 => format!("no node that the pod can use has {wanted} free (all are in use)"),
                most => format!(
                    "no node that the pod can use has {wanted} free (most: {} on {})",
                    pod_requests::amount_text(resource, most),
                    best.node
                ),
            }
        })
    }

    /// Returns how many of the requested GPUs all nodes have together.
    fn gpus_of_cluster(&self) -> Option<u64> {
        let gpus = || self.wanted.keys().filter(|resource| is_gpu_resource(resource));
        let of_node = |candidate: &Candidate| gpus().map(|resource| free(candidate, resource).capacity).sum::<u128>();
        u64::try_from(self.candidates.iter().map(of_node).sum::<u128>() / 1000).ok()
    }

    /// Returns the node that has enough of every resource and is excluded for the fewest other reasons: these reasons,
    /// and its name if they can be due to a fault of the node.
    fn excluded(&self) -> Option<(Option<String>, String)> {
        let with_room =
            self.candidates.iter().filter(|candidate| self.fits(candidate) && !candidate.rejections.is_empty());
        let best = with_room.min_by_key(|candidate| (candidate.rejections.len(), &candidate.node))?;
        let free = self.scarce.iter().map(|resource| ((*resource).clone(), free(best, resource).free));
        let why: Vec<String> = best.rejections.iter().map(RejectionReason::text).collect();
        let text = format!("{} has {} free and is excluded: {}", best.node, listed(free), why.join("; "));
        let may_have_fault = best.rejections.iter().any(|rejection| match rejection {
            RejectionReason::NotReady | RejectionReason::Cordoned => true,
            // This taint only reserves the node for pods with GPUs.
            RejectionReason::Taint(taint) => !taint.starts_with("nvidia.com/gpu"),
            RejectionReason::Label { .. } | RejectionReason::Affinity { .. } => false,
        });
        Some((may_have_fault.then(|| best.node.clone()), text))
    }

    /// Returns whether a node has enough of every resource.
    fn fits(&self, candidate: &Candidate) -> bool {
        self.wanted.iter().all(|(resource, amount)| free(candidate, resource).free >= *amount)
    }

    /// Returns an eligible node that has enough of every resource. The scheduler excludes the node for a reason that is
    /// not checked here.
    fn has_room(&self) -> Option<String> {
        self.open.iter().find(|candidate| self.fits(candidate)).map(|candidate| candidate.node.clone())
    }

    /// Returns the nodes that the selector and the affinity of the pod allow.
    fn selected(&self) -> impl Iterator<Item = &Candidate> {
        self.candidates.iter().filter(|candidate| !candidate.rejections.iter().any(is_of_selector))
    }

    /// Returns the result if the selector of the pod allows no GPU node. The nodes that it means may be larger than the
    /// nodes that exist now.
    fn none_selected(&self, too_large: &[&&String]) -> CapacityShortage {
        let selectors = self.candidates.iter().filter_map(|candidate| {
            candidate.rejections.iter().find_map(|rejection| match rejection {
                RejectionReason::Label { wanted, .. } | RejectionReason::Affinity { wanted, .. } => Some(wanted),
                _ => None,
            })
        });
        let wanted = selectors.take(1).map(|wanted| format!(" ({wanted})")).collect::<String>();
        let asks = listed(self.scarce.iter().map(|resource| ((*resource).clone(), amount(self.wanted, resource))));
        let most = listed(too_large.iter().map(|resource| ((**resource).clone(), self.largest(resource))));
        let (larger, smaller) = match most.as_str() {
            "" => (String::new(), "so that it allows an existing GPU node".to_owned()),
            most => (
                format!("; the largest GPU node, which does not match, has {most}"),
                format!("and request at most {most} in one pod"),
            ),
        };
        CapacityShortage {
            problem: Some(format!("no GPU node matches the nodeSelector or affinity of the pod{wanted}{larger}")),
            shortage: self.shortage(),
            changes: vec![
                format!("add a node with {asks} that the nodeSelector or affinity{wanted} allows").into(),
                format!("change the nodeSelector or affinity {smaller}").into(),
            ],
            fits_now: Some(self.fits_now()),
            unhealthy: self.unhealthy(),
            unhealthy_node: self.unhealthy_node(),
            all_excluded: true,
            gpus_of_cluster: self.gpus_of_cluster(),
            ..CapacityShortage::default()
        }
    }

    /// Returns the largest amount of a resource on the nodes that the selector of the pod allows, if the pod requests more
    /// and another node has enough.
    fn larger_than_selected(&self) -> Option<String> {
        let selected: Vec<&Candidate> = self.selected().collect();
        if selected.is_empty() || selected.len() == self.candidates.len() {
            return None;
        }
        self.scarce.iter().find_map(|resource| {
            let wanted = amount(self.wanted, resource);
            // A GPU that is not allocatable now can be allocatable again after a repair.
            let most = selected.iter().map(|candidate| free(candidate, resource).capacity).max()?;
            (most < wanted && self.largest(resource) >= wanted).then(|| pod_requests::quantity_text(resource, most))
        })
    }

    /// Returns the problem of a pod whose node selector allows only one node, if that node lacks resources and another
    /// node has enough.
    fn tied_to(&self) -> Option<String> {
        let host = |candidate: &&Candidate| {
            candidate.rejections.iter().find_map(|rejection| match rejection {
                RejectionReason::Label { wanted, .. } => {
                    wanted.strip_prefix("kubernetes.io/hostname=").map(str::to_owned)
                }
                _ => None,
            })
        };
        let [only] = self.open.as_slice() else { return None };
        let name = self.candidates.iter().find_map(|candidate| host(&candidate))?;
        let lacking = listed(self.scarce.iter().map(|resource| ((*resource).clone(), amount(self.wanted, resource))));
        Some(format!(
            "the pod's nodeSelector allows only {name} (kubernetes.io/hostname), and {} does not have {lacking} free",
            only.node
        ))
    }

    /// Returns the largest request of the first insufficient resource that currently fits on an eligible node, and the
    /// nodes: `fits now: at most 2 nvidia.com/gpu in one pod (2 on gpu-7, 1 on gpu-8)`.
    fn fits_now(&self) -> String {
        let Some(resource) = self.scarce.first() else { return "fits now: nothing".to_owned() };
        let amount = |candidate: &Candidate| free(candidate, resource).free;
        let mut with_room: Vec<&Candidate> =
            self.open.iter().copied().filter(|candidate| amount(candidate) > 0).collect();
        with_room.sort_by_key(|candidate| (Reverse(amount(candidate)), candidate.node.clone()));
        let Some(best) = with_room.first() else {
            if self.open.is_empty() {
                return format!("fits now: no pod that requests {resource}, because every GPU node is excluded");
            }
            return format!("fits now: no pod that requests {resource}, because no eligible GPU node has any free");
        };
        let listed = with_room.iter().take(MAX_NODES).map(|candidate| {
            format!("{} on {}", pod_requests::amount_text(resource, amount(candidate)), candidate.node)
        });
        let more = if with_room.len() > MAX_NODES { ", …" } else { "" };
        let most = pod_requests::quantity_text(resource, amount(best));
        format!("fits now: at most {most} in one pod ({}{more})", listed.collect::<Vec<_>>().join(", "))
    }

    /// Returns the maximum allocatable amount of a resource on one of the nodes.
    fn largest(&self, resource: &str) -> u128 {
        self.candidates.iter().map(|candidate| free(candidate, resource).allocatable).max().unwrap_or(0)
    }

    /// Returns the result if no node has the resource. The requested name is wrong, or a device plugin does not work.
    fn not_offered(&self, resource: &str) -> CapacityShortage {
        let mut others: Vec<&str> =
            self.candidates.iter().flat_map(|candidate| &candidate.offers).map(String::as_str).collect();
        others.sort_unstable();
        others.dedup();
        let change = match (others.as_slice(), self.candidates.first()) {
            ([], Some(first)) if is_gpu_resource(resource) => {
                format!(
                    "run diagnose_gpu_node for {} to see why it advertises none (device plugin, driver)",
                    first.node
                )
            }
            ([], _) => format!("add a node that advertises {resource}"),
            // A GPU is no replacement for a network device or for huge pages.
            _ if !is_gpu_resource(resource) => format!(
                "check the device plugin of {resource} on the GPU nodes and the configuration of their machines (some instance types, subnets or \
                 kernel settings are needed), or remove this request from the pod"
            ),
            (others, _) => {
                let general = format!(
                    "request a resource that the GPU nodes advertise ({}), or configure a node to advertise {resource}",
                    others.join(", ")
                );
                match self.other_name(resource) {
                    Some(why) => format!("{general}: {why}"),
                    None => general,
                }
            }
        };
        let asks = pod_requests::quantity_text(resource, amount(self.wanted, resource));
        CapacityShortage {
            problem: Some(format!("no GPU node advertises {resource}")),
            shortage: match self.candidates {
                [only] => format!("requests {asks}; {} advertises none", only.node),
                all => format!("requests {asks}; none of the {} GPU nodes advertises any", all.len()),
            },
            changes: vec![change.into()],
            needs_all: true,
            // If no node has any GPU resource, a device plugin may still register.
            never_fits: !others.is_empty(),
            unhealthy: self.unhealthy(),
            unhealthy_node: self.unhealthy_node(),
            all_excluded: self.open.is_empty(),
            gpus_of_cluster: self.gpus_of_cluster(),
            ..CapacityShortage::default()
        }
    }

    /// Returns the reason why a GPU node advertises its GPUs under a name other than the requested name, from the
    /// labels of the node.
    fn other_name(&self, resource: &str) -> Option<String> {
        let is_shared = resource.ends_with(".shared");
        let is_mig = resource.starts_with("nvidia.com/mig-");
        self.candidates.iter().find_map(|candidate| {
            let node = &candidate.node;
            let label = |name: &str| candidate.gpu_labels.get(name).map(|value| format!("{name}={value}"));
            let has = |names: &[&str]| names.iter().filter_map(|name| label(name)).collect::<Vec<_>>().join(", ");
            let offers = |is: &dyn Fn(&str) -> bool| candidate.offers.iter().find(|name| is(name));
            let of_mig = offers(&|name| name.starts_with("nvidia.com/mig-"));
            if is_shared && let Some(plain) = offers(&|name| format!("{name}.shared") == resource) {
                let sharing = has(&["nvidia.com/gpu.replicas", "nvidia.com/gpu.sharing-strategy"]);
                return Some(if sharing.is_empty() || label("nvidia.com/gpu.replicas").as_deref() == Some("nvidia.com/gpu.replicas=1") {
                    format!("{node} does not share its GPUs (time-slicing or MPS is not configured in its device plugin)")
                } else {
                    format!(
                        "{node} shares its GPUs ({sharing}) under the name {plain}, because renameByDefault is not \
                         set in its part of the device plugin's configuration (sharing.timeSlicing): request {plain}, \
                         or set renameByDefault there and restart the device plugin"
                    )
                });
            }
            if let Some(shared) = offers(&|name| name == format!("{resource}.shared")) {
                return Some(format!("{node} shares its GPUs under the name {shared} (renameByDefault)"));
            }
            let state = has(&["nvidia.com/mig.strategy", "nvidia.com/mig.config", "nvidia.com/mig.config.state"]);
            let state = if state.is_empty() { String::new() } else { format!(" ({state})") };
            match (is_mig, of_mig) {
                (true, Some(_)) => Some(format!(
                    "{node} has other MIG devices{state}; if {node} has instances of this profile already (nvidia-smi \
                     -L there, or diagnose_gpu_node for {node}), they were created after its device plugin started, \
                     so restart the device plugin; otherwise, set the MIG layout of {node} (label \
                     nvidia.com/mig.config)"
                )),
                (true, None) if !candidate.offers.is_empty() => Some(format!(
                    "{node} advertises whole GPUs{state}: MIG is off there, or the device plugin's MIG strategy is not mixed \
                     (diagnose_gpu_node for {node})"
                )),
                (false, Some(profile)) if resource == "nvidia.com/gpu" => Some(format!(
                    "{node} advertises its MIG devices by their profile{state}: request a MIG device such as \
                    {profile}, or use the MIG strategy single"
                )),
                _ => None,
            }
        })
    }

    /// Describes the shortage, for example `requests 4 nvidia.com/gpu on one node; the most that any GPU node has free
    /// is 2, on gpu-7; 3 nodes are full`.
    fn shortage(&self) -> String {
        let asks = listed(self.scarce.iter().map(|resource| ((*resource).clone(), amount(self.wanted, resource))));
        let mut parts = vec![format!("requests {asks} on one node")];
        if self.open.is_empty() {
            parts.push("every GPU node is excluded for another reason".to_owned());
        }
        for resource in self.scarce.iter().filter(|_| !self.open.is_empty()) {
            let of_which = if self.scarce.len() > 1 { format!(" of {resource}") } else { String::new() };
            match self.roomiest(resource) {
                Some(best) if free(best, resource).free > 0 => {
                    let most = pod_requests::amount_text(resource, free(best, resource).free);
                    parts.push(format!("the most{of_which} that any GPU node has free is {most}, on {}", best.node));
                }
                _ => parts.push(format!("no eligible GPU node has any{of_which} free")),
            }
        }
        let counts = self.counts();
        if !counts.is_empty() {
            parts.push(counts.join(", "));
        }
        parts.join("; ")
    }

    /// Returns the open node with the largest free amount of the resource. If there are several, returns the first by
    /// name.
    fn roomiest(&self, resource: &str) -> Option<&Candidate> {
        let order = |candidate: &&&Candidate| (free(candidate, resource).free, Reverse(candidate.node.clone()));
        self.open.iter().max_by_key(order).copied()
    }

    /// Counts the excluded nodes by reason. A node counts once, for its first reason.
    fn counts(&self) -> Vec<String> {
        let first = |candidate: &&Candidate| candidate.rejections.first().cloned();
        let closed: Vec<RejectionReason> = self.candidates.iter().filter_map(|candidate| first(&candidate)).collect();
        let number = |is: fn(&RejectionReason) -> bool| closed.iter().filter(|rejection| is(rejection)).count();
        let none_free =
            |candidate: &&&Candidate| self.scarce.first().is_some_and(|resource| free(candidate, resource).free == 0);
        let counted = [
            (self.open.iter().filter(none_free).count(), "full"),
            (number(|rejection| *rejection == RejectionReason::Cordoned), "cordoned"),
            (number(|rejection| *rejection == RejectionReason::NotReady), "not Ready"),
            (number(|rejection| matches!(rejection, RejectionReason::Taint(_))), "tainted"),
            (number(is_of_selector), "not selected"),
        ];
        let counted = counted.iter().filter(|(count, _)| *count > 0).enumerate();
        let words = counted.map(|(at, (count, word))| match (at, count) {
            (0, 1) => format!("1 node is {word}"),
            (0, _) => format!("{count} nodes are {word}"),
            _ => format!("{count} {word}"),
        });
        words.collect()
    }

    /// Returns changes, each of which would be sufficient to start the pod.
    fn changes(&self) -> Vec<Change> {
        if self.has_room().is_some() {
            return Vec::new();
        }
        let best = self.nearest();
        let repair = self.open.iter().find(|candidate| self.would_fit_after_repair(candidate));
        let repair = repair.map(|candidate| repair_gpus(&candidate.node));
        let mut changes: Vec<Change> = repair.into_iter().chain(self.reduce_other().map(Change::from)).collect();
        changes.extend(best.and_then(|best| self.free_more(best)).map(Change::from));
        changes.extend(self.lift_rejections());
        let lacks = |best: &Candidate| {
            let short = self.scarce.iter().map(|resource| ((*resource).clone(), free(best, resource).free));
            let short: Vec<_> = short.filter(|(resource, free)| *free < amount(self.wanted, resource)).collect();
            let can_shrink = !short.is_empty() && short.iter().all(|(_, free)| *free > 0);
            can_shrink.then(|| listed(short.into_iter()))
        };
        changes.extend(best.and_then(lacks).map(|most| format!("request at most {most}").into()));
        changes.truncate(MAX_CHANGES);
        changes
    }

    /// Returns the open node that is large enough and lacks the fewest resources. If there are several, returns the one
    /// with the largest free amount of the first resource.
    fn nearest(&self) -> Option<&Candidate> {
        let large = |candidate: &&&Candidate| {
            self.scarce.iter().all(|resource| free(candidate, resource).allocatable >= amount(self.wanted, resource))
        };
        let order = |candidate: &&&Candidate| {
            let short = |resource: &&&String| free(candidate, resource).free < amount(self.wanted, resource);
            let first = self.scarce.first().map(|resource| free(candidate, resource).free);
            (Reverse(self.scarce.iter().filter(short).count()), first, Reverse(candidate.node.clone()))
        };
        self.open.iter().filter(large).max_by_key(order).copied()
    }

    /// Returns whether the GPUs of a node that are not allocatable would be enough, and the node lacks nothing else.
    fn would_fit_after_repair(&self, candidate: &Candidate) -> bool {
        self.wanted.iter().all(|(resource, wanted)| {
            let amount = free(candidate, resource);
            let repaired = if is_gpu_resource(resource) { amount.free_of_capacity } else { amount.free };
            repaired >= *wanted
        })
    }

    /// Returns a smaller request of other resources than GPUs, if a node has enough free GPUs, and the pod requests more of
    /// the other resources than this node has.
    fn reduce_other(&self) -> Option<String> {
        let large = |candidate: &&&Candidate| {
            self.wanted.iter().all(|(resource, wanted)| {
                let amount = free(candidate, resource);
                if is_gpu_resource(resource) {
                    amount.free >= *wanted
                } else {
                    amount.free >= *wanted || amount.allocatable < *wanted
                }
            })
        };
        let node = self.open.iter().find(large)?;
        let less = self.wanted.iter().filter(|(resource, wanted)| free(node, resource).free < **wanted);
        let less: Vec<_> = less.map(|(resource, _)| (resource.clone(), free(node, resource).free)).collect();
        if let Some((resource, _)) = less.iter().find(|(resource, _)| free(node, resource).allocatable == 0) {
            let node = &node.node;
            return Some(format!(
                "find out why {node} does not offer {resource} (the pod of its device plugin): {node} has enough GPUs free"
            ));
        }
        Some(format!(
            "request at most {}, so that the pod fits on {}, which has enough GPUs free",
            listed(less.into_iter()),
            node.node
        ))
    }

    /// Returns the amount to free on a node, and the pod that uses the most of the resource.
    fn free_more(&self, best: &Candidate) -> Option<String> {
        let lacking = self.scarce.iter().map(|resource| {
            ((*resource).clone(), amount(self.wanted, resource).saturating_sub(free(best, resource).free))
        });
        let lacking = listed(lacking.filter(|(_, amount)| *amount > 0));
        let holder = best.used_by.first()?;
        Some(format!("free {lacking} on {} (used by {holder})", best.node))
    }

    /// Finds, for each kind of obstacle, the first node that has enough free resources and no other obstacle.
    fn lift_rejections(&self) -> Vec<Change> {
        let mut lifted: Vec<(std::mem::Discriminant<RejectionReason>, Change)> = Vec::new();
        for candidate in self.candidates.iter().filter(|candidate| self.fits(candidate)) {
            let [rejection] = candidate.rejections.as_slice() else { continue };
            let kind = std::mem::discriminant(rejection);
            if !lifted.iter().any(|(known, _)| *known == kind) {
                let free = self.scarce.iter().map(|resource| ((*resource).clone(), free(candidate, resource).free));
                let remedy = remedy(rejection, &candidate.node);
                let text = format!("{}, which has {} free", remedy.text, listed(free));
                lifted.push((kind, Change { text, ..remedy }));
            }
        }
        lifted.into_iter().map(|(_, change)| change).collect()
    }
}

/// Returns whether the selector or the affinity of the pod excludes the node.
fn is_of_selector(rejection: &RejectionReason) -> bool {
    matches!(rejection, RejectionReason::Label { .. } | RejectionReason::Affinity { .. })
}

/// Returns the change for a node whose GPUs are not all allocatable.
fn repair_gpus(node: &str) -> Change {
    let text = format!("repair the GPUs of {node} that are not allocatable (diagnose_gpu_node for {node})");
    Change::from(text).after(CheckBefore::Repair(node.to_owned()))
}

/// Returns whether a label (`key=value`) identifies a machine, its location or its node pool. Such a label is not changed to place a
/// pod.
fn is_of_machine(label: &str) -> bool {
    const DOMAINS: [&str; 11] = [
        "kubernetes.io/",
        "topology.kubernetes.io/",
        "node.kubernetes.io/",
        "failure-domain.beta.kubernetes.io/",
        "topology.gke.io/",
        "cloud.google.com/",
        "karpenter.sh/",
        "eks.amazonaws.com/",
        "alpha.eksctl.io/",
        "kubernetes.azure.com/",
        "agentpool=",
    ];
    DOMAINS.iter().any(|domain| label.starts_with(domain))
}

/// Returns whether feature discovery sets a label from the hardware of the machine.
fn is_discovered(label: &str) -> bool {
    const STARTS: [&str; 6] = [
        "nvidia.com/gpu.",
        "nvidia.com/cuda.",
        "nvidia.com/mig.",
        "feature.node.kubernetes.io/",
        "amd.com/gpu.",
        "gpu.intel.com/",
    ];
    STARTS.iter().any(|start| label.starts_with(start)) && !label.starts_with("nvidia.com/mig.config")
}

/// Returns whether an operator of NVIDIA uses a label to show a state.
fn is_state(label: &str) -> bool {
    let key = label.split('=').next().unwrap_or_default();
    key.contains("nvidia.com/")
        && ["wait", ".state", "-state", ".ready", "gpu.deploy."].iter().any(|part| key.contains(part))
}

/// Returns the change for a cordoned node. A person or a controller has cordoned it for a reason that is not known here.
pub(crate) fn uncordon(node: &str) -> Change {
    let text =
        format!("if {node} has no fault (diagnose_gpu_node shows its faults, and who cordoned it), uncordon {node}");
    Change::from(text).after(CheckBefore::Uncordon(node.to_owned()))
}

/// Returns the change that removes an obstacle.
fn remedy(rejection: &RejectionReason, node: &str) -> Change {
    let text = match rejection {
        RejectionReason::NotReady => format!("repair {node} (not Ready)"),
        RejectionReason::Cordoned => return uncordon(node),
        RejectionReason::Taint(taint) => {
            let check = CheckBefore::Tolerate { node: node.to_owned(), taint: taint.clone() };
            return Change::from(format!("tolerate the taint {taint} of {node}")).after(check);
        }
        // A program for another processor or operating system does not start on the node.
        RejectionReason::Label { wanted, .. }
            if ["kubernetes.io/arch=", "kubernetes.io/os="].iter().any(|start| wanted.starts_with(start)) =>
        {
            format!(
                "use an image that is made for {node} and change {wanted} in its nodeSelector, or add a GPU node with {wanted}"
            )
        }
        RejectionReason::Label { wanted, .. } if is_of_machine(wanted) => {
            format!(
                "remove {wanted} from the pod's nodeSelector (if a controller added it, change the setting that causes \
                    this), so that the pod can use {node}, or add a node with {wanted}"
            )
        }
        RejectionReason::Label { wanted, .. } if is_state(wanted) => format!(
            "repair the pods of the operator on {node} (see their logs): the operator sets {wanted} when its pods are \
                ready, so do not change the label or the nodeSelector for {node}"
        ),
        // Feature discovery sets such a label on every node with GPUs.
        RejectionReason::Label { wanted, found: None }
            if is_discovered(wanted) && wanted.starts_with("nvidia.com/") && !wanted.contains("/mig") =>
        {
            format!(
                "repair feature discovery on {node} (its pod and log; if it started before the driver, delete the pod): it has not set {wanted} \
                    although {node} offers GPUs"
            )
        }
        RejectionReason::Label { wanted, found } if is_discovered(wanted) => {
            let has = found
                .as_ref()
                .map_or_else(|| format!("{node} does not have this label"), |found| format!("{node} has {found}"));
            let text = format!(
                "change {wanted} in its nodeSelector: {has} (feature discovery sets this label from the hardware), so that the pod can \
                    use {node}"
            );
            return Change::from(text).after(CheckBefore::Relabel { node: node.to_owned(), label: wanted.clone() });
        }
        RejectionReason::Label { wanted, found: Some(found) } => {
            format!(
                "change {wanted} in its nodeSelector ({node} has {found}), or the label of {node}, so that the pod can use it"
            )
        }
        RejectionReason::Label { wanted, found: None } => format!("add the label {wanted} to {node}"),
        RejectionReason::Affinity { wanted, found } => {
            let has = found.replacen("the node", node, 1);
            format!("change {wanted} in the pod's node affinity ({has}), so that the pod can use {node}")
        }
    };
    text.into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const GPU: &str = "nvidia.com/gpu";
    const SHORT: &str = "0/6 nodes are available: 4 Insufficient nvidia.com/gpu, 2 node(s) were unschedulable.";

    fn texts(room: &CapacityShortage) -> Vec<&str> {
        room.changes.iter().map(|change| change.text.as_str()).collect()
    }

    fn node(name: &str, free: u128, rejections: Vec<RejectionReason>) -> Candidate {
        let used_by = if free < 8 { vec![format!("ml/train-0 ({} {GPU})", 8 - free)] } else { Vec::new() };
        let free = BTreeMap::from([
            (
                GPU.to_owned(),
                FreeAmount { free: free * 1000, allocatable: 8000, capacity: 8000, free_of_capacity: free * 1000 },
            ),
            (
                "cpu".to_owned(),
                FreeAmount { free: 32_000, allocatable: 64_000, capacity: 64_000, free_of_capacity: 32_000 },
            ),
        ]);
        Candidate {
            node: name.into(),
            reasons_against: Vec::new(),
            used_by,
            used_by_omitted: 0,
            rejections,
            free,
            offers: vec![GPU.into()],
            gpu_labels: BTreeMap::new(),
        }
    }

    fn asks(gpus: u128) -> MilliValues {
        MilliValues::from([(GPU.to_owned(), gpus * 1000)])
    }

    #[test]
    fn a_selector_that_allows_no_node_comes_before_the_size_of_the_nodes_that_it_excludes() {
        let other = || vec![RejectionReason::Label { wanted: "pool=h200".into(), found: Some("pool=l40s".into()) }];
        let message = "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.";
        let room = find(&[node("gpu-1", 8, other())], &asks(16), Some(message)).expect("a shortage");
        let problem = "no GPU node matches the nodeSelector or affinity of the pod (pool=h200); the largest GPU node, which \
                       does not match, has 8 nvidia.com/gpu";
        assert_eq!((room.problem.as_deref(), room.never_fits), (Some(problem), false));
        let room = find(&[node("gpu-1", 0, other())], &asks(1), Some(message)).expect("a shortage");
        let problem = "no GPU node matches the nodeSelector or affinity of the pod (pool=h200)";
        assert_eq!((room.problem.as_deref(), room.changes.len()), (Some(problem), 2));
    }

    #[test]
    fn the_node_that_has_enough_gpus_tells_what_else_is_missing() {
        let mut wanted = asks(4);
        wanted.insert("cpu".into(), 48_000);
        let message = "0/2 nodes are available: 1 Insufficient nvidia.com/gpu, 2 Insufficient cpu.";
        let nodes = [node("gpu-1", 8, Vec::new()), node("gpu-2", 0, Vec::new())];
        let room = find(&nodes, &wanted, Some(message)).expect("a shortage");
        let problem = "gpu-1 has enough GPUs free, but has only 32 cpu of the requested 48";
        assert_eq!((room.problem.as_deref(), room.has_enough_gpus), (Some(problem), true));
    }

    #[test]
    fn gpus_that_a_node_has_and_does_not_offer_are_named() {
        for (offered, told) in [(8, None), (7, Some("1 of 8 nvidia.com/gpu of gpu-7 not allocatable"))] {
            let mut lacking = node("gpu-7", 0, Vec::new());
            lacking.free.get_mut(GPU).expect("a GPU").allocatable = offered * 1000;
            let room = find(&[lacking, node("gpu-8", 0, Vec::new())], &asks(1), Some(SHORT)).expect("a shortage");
            assert_eq!(room.unhealthy.as_deref(), told);
        }
    }

    #[test]
    fn what_is_free_and_what_would_help_is_told_in_numbers() {
        let mut nodes = vec![node("gpu-7", 2, Vec::new()), node("gpu-8", 8, vec![RejectionReason::Cordoned])];
        nodes.extend(["gpu-1", "gpu-2", "gpu-3"].map(|name| node(name, 0, Vec::new())));
        nodes.push(node("gpu-9", 0, vec![RejectionReason::Cordoned]));
        let room = find(&nodes, &asks(4), Some(SHORT)).expect("a shortage");
        let words = "requests 4 nvidia.com/gpu on one node; the most that any GPU node has free is 2, on gpu-7; 3 nodes are \
                     full, 2 cordoned";
        assert_eq!((room.shortage.as_str(), room.needs_all), (words, false));
        let changes = [
            "free 2 nvidia.com/gpu on gpu-7 (used by ml/train-0 (6 nvidia.com/gpu))",
            "if gpu-8 has no fault (diagnose_gpu_node shows its faults, and who cordoned it), uncordon gpu-8, which has 8 nvidia.com/gpu free",
            "request at most 2 nvidia.com/gpu",
        ];
        assert_eq!(texts(&room), changes);
        assert_eq!(room.fits_now.as_deref(), Some("fits now: at most 2 nvidia.com/gpu in one pod (2 on gpu-7)"));
        assert!(!room.never_fits);
    }

    #[test]
    fn more_than_any_node_has_cannot_be_freed() {
        let room = find(&[node("gpu-1", 4, Vec::new())], &asks(16), Some(SHORT)).expect("a shortage");
        assert_eq!(texts(&room), ["request at most 8 nvidia.com/gpu in one pod: no GPU node has more"]);
        assert_eq!(room.problem.as_deref(), Some("no node has 16 nvidia.com/gpu (most: 8)"));
        let mut both = asks(16);
        both.insert("cpu".into(), 96_000);
        let scheduler_message = "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient nvidia.com/gpu.";
        let room = find(&[node("gpu-1", 4, Vec::new())], &both, Some(scheduler_message)).expect("a shortage");
        assert!(room.needs_all && room.changes.len() == 2, "{room:?}");
        assert_eq!(room.problem.as_deref(), Some("no node has 16 nvidia.com/gpu (most: 8), or 96 cpu (most: 64)"));
        let words = "requests 16 nvidia.com/gpu and 96 cpu on one node; the most of nvidia.com/gpu that any GPU node has free \
                     is 4, on gpu-1; the most of cpu that any GPU node has free is 32, on gpu-1";
        assert_eq!(room.shortage, words);
    }

    #[test]
    fn all_that_a_node_lacks_has_to_be_freed() {
        let mut both = asks(4);
        both.insert("cpu".into(), 48_000);
        let scheduler_message = "0/2 nodes are available: 2 Insufficient cpu, 1 Insufficient nvidia.com/gpu.";
        let room = find(&[node("gpu-1", 2, Vec::new()), node("gpu-2", 5, Vec::new())], &both, Some(scheduler_message))
            .expect("a shortage");
        // gpu-2 has enough GPUs, but not enough CPUs.
        assert_eq!(room.changes[0].text, "free 16 cpu on gpu-2 (used by ml/train-0 (3 nvidia.com/gpu))");
        assert_eq!(room.changes[1].text, "request at most 32 cpu");
    }

    #[test]
    fn a_resource_that_no_node_offers_is_no_shortage() {
        let mut dead = node("gpu-1", 0, Vec::new());
        dead.free = BTreeMap::new();
        dead.offers.clear();
        let room =
            find(&[dead], &asks(1), Some("0/1 nodes are available: 1 Insufficient nvidia.com/gpu.")).expect("none");
        assert_eq!(room.problem.as_deref(), Some("no GPU node advertises nvidia.com/gpu"));
        assert!(room.changes[0].text.contains("run diagnose_gpu_node for gpu-1"), "{room:?}");
        let mig = MilliValues::from([("nvidia.com/mig-1g.10gb".to_owned(), 1000)]);
        let scheduler_message = "0/1 nodes are available: 1 Insufficient nvidia.com/mig-1g.10gb.";
        let room = find(&[node("gpu-1", 8, Vec::new())], &mig, Some(scheduler_message)).expect("none");
        assert!(
            room.changes[0].text.contains("request a resource that the GPU nodes advertise (nvidia.com/gpu)"),
            "{room:?}"
        );
    }

    #[test]
    fn nodes_that_are_closed_are_counted_by_their_reason() {
        let taint = || RejectionReason::Taint("team=vision:NoSchedule".into());
        let nodes = [
            node("gpu-1", 8, vec![taint()]),
            node("gpu-2", 8, vec![RejectionReason::NotReady]),
            node("gpu-3", 8, vec![RejectionReason::Label { wanted: "zone=b".into(), found: Some("zone=a".into()) }]),
        ];
        let scheduler_message =
            "0/3 nodes are available: 1 node(s) had untolerated taint {team: vision}, 2 node(s) were not ready.";
        let room = find(&nodes, &asks(4), Some(scheduler_message)).expect("closed nodes");
        let words = "requests 4 nvidia.com/gpu on one node; every GPU node is excluded for another reason; 1 node is not Ready, 1 tainted, 1 not \
                     selected";
        assert_eq!(room.shortage, words);
        assert_eq!(
            room.changes[0].text,
            "tolerate the taint team=vision:NoSchedule of gpu-1, which has 8 nvidia.com/gpu free"
        );
        assert_eq!(room.changes.len(), 3);
    }

    #[test]
    fn what_the_scheduler_does_not_name_is_not_claimed() {
        let nodes = [node("gpu-1", 2, Vec::new())];
        let volume = "0/1 nodes are available: 1 node(s) had volume node affinity conflict.";
        assert_eq!(find(&nodes, &asks(4), Some(volume)), None);
        assert!(find(&nodes, &asks(4), Some(SHORT)).is_some());
        let memory = MilliValues::from([("memory".to_owned(), 1000)]);
        assert_eq!(
            find(&nodes, &memory, Some("1 Insufficient memory")),
            None,
            "it may run on nodes that are not listed"
        );
        let room = find(&[node("gpu-1", 8, Vec::new())], &asks(4), Some(SHORT)).expect("a node with room");
        assert_eq!((room.has_room.as_deref(), room.problem, room.changes), (Some("gpu-1"), None, Vec::new()));
        assert_eq!(find(&[node("gpu-1", 8, Vec::new())], &asks(4), Some("pod group is not ready")), None);
    }

    #[test]
    fn a_node_with_room_that_is_excluded_is_told_with_its_reasons() {
        let closed = node("gpu-8", 8, vec![RejectionReason::Cordoned]);
        let room = find(&[node("gpu-7", 2, Vec::new()), closed], &asks(4), Some(SHORT)).expect("a shortage");
        assert_eq!(room.excluded.as_deref(), Some("gpu-8 has 8 nvidia.com/gpu free and is excluded: cordoned"));
        let room = find(&[node("gpu-7", 2, Vec::new())], &asks(4), Some(SHORT)).expect("a shortage");
        assert_eq!(room.excluded, None);
    }
}
