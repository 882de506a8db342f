//! `of_port`, `bonds`, `DefaultRoutes`: read the network interface of a port, bonds, and default routes.

use std::collections::BTreeSet;
use std::path::Path;

use syringe_core::facts::topology::{Bond, NicInterface};
use syringe_core::text::clean;

use crate::paths::Paths;
use crate::{bounded, files};

/// Maximum number of interfaces of one card that are read. A card that is divided into virtual cards can have hundreds.
const MAX_OF_CARD: usize = 64;
/// Maximum number of bonds, and of members of a bond.
const MAX_BONDS: usize = 16;
/// Maximum size of a table of routes. The default routes of a longer table may be missing.
const MAX_ROUTES: usize = 256 * 1024;
/// Maximum length of the name of an interface in the kernel, without the terminating zero byte.
const NAME: usize = 15;

/// The interfaces through which the node reaches other networks, without their members.
pub(super) struct DefaultRoutes(BTreeSet<String>);

impl DefaultRoutes {
    /// Reads the default routes of IPv4 and IPv6.
    pub(super) fn read(paths: &Paths) -> Self {
        let table = |name: &str| {
            let text = files::head(&paths.proc.join("net").join(name), MAX_ROUTES).unwrap_or_default();
            String::from_utf8_lossy(&text).into_owned()
        };
        let of_ipv4 = |line: &str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            (*fields.get(1)? == "00000000" && *fields.get(7)? == "00000000").then(|| fields[0].to_owned())
        };
        let of_ipv6 = |line: &str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let is_default = fields.first()?.bytes().all(|digit| digit == b'0') && *fields.get(1)? == "00";
            fields.last().filter(|name| is_default && **name != "lo").map(|&name| name.to_owned())
        };
        let mut names: BTreeSet<String> = table("route").lines().filter_map(of_ipv4).collect();
        names.extend(table("ipv6_route").lines().filter_map(of_ipv6));
        // If a VLAN, a bridge or a bond has the route, the interfaces of the cards are below it.
        for _ in 0..3 {
            let below = names.iter().flat_map(|name| lower(paths, name)).collect::<Vec<String>>();
            names.extend(below);
        }
        Self(names)
    }

    fn has(&self, interface: &str) -> bool {
        self.0.contains(interface)
    }
}

/// Returns the interfaces below a VLAN, a bridge or a bond.
fn lower(paths: &Paths, name: &str) -> Vec<String> {
    let Some(folder) = folder(paths, name) else { return Vec::new() };
    let names = files::names(&folder).unwrap_or_default();
    names.iter().filter_map(|name| name.strip_prefix("lower_")).take(MAX_OF_CARD).map(str::to_owned).collect()
}

/// Returns the folder of an interface; `None` for a text that is not the name of an interface.
fn folder(paths: &Paths, name: &str) -> Option<std::path::PathBuf> {
    let is_name = !name.is_empty() && name.len() <= NAME && name != "." && name != ".." && !name.contains('/');
    is_name.then(|| paths.sys.join("class/net").join(name))
}

/// Returns the interface of the port with this number of a card. `function`: the folder of the card's PCI function.
pub(super) fn of_port(function: &Path, port: u32, routes: &DefaultRoutes) -> Option<NicInterface> {
    let net = function.join("net");
    let is_of_port = |name: &String| {
        let folder = net.join(name);
        // Interfaces that represent virtual functions have names such as pf0vf1 or pf0sf1.
        let is_virtual = files::text(&folder.join("phys_port_name")).is_some_and(|name| name.starts_with("pf"));
        !is_virtual && files::number::<u32>(&folder.join("dev_port")).unwrap_or(0).checked_add(1) == Some(port)
    };
    let name = files::names(&net).ok()?.into_iter().take(MAX_OF_CARD).find(is_of_port)?;
    let folder = net.join(&name);
    let enabled = files::hex(&folder.join("flags")).map(|flags| flags & 1 == 1);
    let master = files::link(&folder.join("master")).ok();
    let master = master.as_ref().and_then(|master| master.file_name()?.to_str());
    let bond = master.filter(|_| files::exists(&folder.join("bonding_slave")));
    Some(NicInterface {
        operational_state: files::text(&folder.join("operstate")).map(|state| clean(&state, 20)),
        enabled,
        default_route: routes.has(&name),
        bond: bond.map(|bond| clean(bond, NAME)),
        name: clean(&name, NAME),
    })
}

/// Returns the bonds, each with the members that have a link and the members that have no link.
pub(super) fn bonds(paths: &Paths, routes: &DefaultRoutes) -> Vec<Bond> {
    let masters = files::text(&paths.sys.join("class/net/bonding_masters")).unwrap_or_default();
    let mut names: Vec<&str> = masters.split_whitespace().collect();
    bounded::cut(&mut names, MAX_BONDS, "bonds");
    let bond = |name: &str| {
        let mut bond = Bond { name: clean(name, NAME), default_route: routes.has(name), ..Bond::default() };
        let members = files::text(&folder(paths, name)?.join("bonding/slaves")).unwrap_or_default();
        for member in members.split_whitespace().take(MAX_BONDS) {
            match files::text(&folder(paths, member)?.join("bonding_slave/mii_status")).as_deref() {
                Some("up") => bond.up.push(clean(member, NAME)),
                Some(_) => bond.down.push(clean(member, NAME)),
                None => {}
            }
        }
        Some(bond)
    };
    names.into_iter().filter_map(bond).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;

    fn tree() -> Tree {
        let tree = Tree::new();
        tree.file("proc/net/route", "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\nvlan7\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\neth9\t0000A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\n");
        tree.file("proc/net/ipv6_route", format!("{0} 00 {0} 00 {0} ffffffff 1 0 200200 lo\n", "0".repeat(32)));
        tree.folder("sys/class/net/vlan7/lower_bond0").folder("sys/class/net/bond0/lower_eth0");
        tree.file("sys/class/net/bonding_masters", "bond0 ../../etc\n");
        tree.file("sys/class/net/bond0/bonding/slaves", "eth0 eth1\n");
        tree.file("sys/class/net/eth0/bonding_slave/mii_status", "up\n");
        tree.file("sys/class/net/eth1/bonding_slave/mii_status", "down\n");
        tree
    }

    #[test]
    fn a_route_over_a_vlan_of_a_bond_is_that_of_its_cards() {
        let tree = tree();
        let routes = DefaultRoutes::read(&tree.paths());
        let has: Vec<&str> =
            ["vlan7", "bond0", "eth0", "eth9", "lo"].into_iter().filter(|name| routes.has(name)).collect();
        assert_eq!(has, ["vlan7", "bond0", "eth0"]);
        let bond =
            Bond { name: "bond0".into(), default_route: true, up: vec!["eth0".into()], down: vec!["eth1".into()] };
        assert_eq!(bonds(&tree.paths(), &routes), [bond], "a path is not a name");
    }

    #[test]
    fn the_interface_of_a_port_is_not_that_of_a_virtual_function() {
        let tree = tree();
        for (name, port) in [("eth0", "pf0vf1"), ("eth2", "p0"), ("eth3", "p1")] {
            tree.file(&format!("card/net/{name}/phys_port_name"), port);
            tree.file(&format!("card/net/{name}/dev_port"), if port == "p1" { "1\n" } else { "0\n" });
            tree.file(&format!("card/net/{name}/operstate"), "down\n");
            tree.file(&format!("card/net/{name}/flags"), "0x1002\n");
        }
        tree.folder("card/net/eth2/bonding_slave").link("card/net/eth2/master", "../../../../virtual/net/bond0");
        let card = tree.path().join("card");
        let routes = DefaultRoutes::read(&tree.paths());
        let port = of_port(&card, 1, &routes).expect("an interface");
        assert_eq!((port.name.as_str(), port.bond.as_deref(), port.default_route), ("eth2", Some("bond0"), false));
        assert_eq!((port.operational_state.as_deref(), port.enabled), (Some("down"), Some(false)));
        assert_eq!(of_port(&card, 2, &routes).map(|port| port.name).as_deref(), Some("eth3"));
        assert_eq!(of_port(&card, 3, &routes), None);
    }
}
