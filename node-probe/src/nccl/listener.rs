//! `Pod`: the processes of a pod. `Listener`: the loopback address on which only this pod listens for NCCL requests.
//! `Network`, `Tables`: a network namespace of the pod, and its sockets.
//!
//! The files of a process are opened below a descriptor of its folder in `/proc`. Such a descriptor belongs to one
//! process: after this process has ended, every read fails, even if another process has the same ID. The sockets are
//! read in the network namespace in which the request is sent: the caller enters it first.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Dir, FsWord, Mode, OFlags, Stat, fstat, fstatfs, openat, readlinkat};

use crate::paths::own_cgroup;
use crate::{cgroup, files};

/// Port of the service, unless the variable [`ADDRESS`] specifies another port.
const PORT: u16 = 28_028;
/// The variable with the address of the service.
const ADDRESS: &[u8] = b"NCCL_RAS_ADDR=";
/// Maximum size of a table of sockets.
const MAX_TABLE: u64 = 4 << 20;
/// Maximum size of other files of a process.
const MAX_FILE: u64 = 64 << 10;
/// Maximum number of processes of the pod, and of descriptors of each.
const MAX_PROCESSES: usize = 512;
const MAX_DESCRIPTORS: usize = 16_384;
/// Maximum number of network namespaces, and of environments that are read.
const MAX_NETWORKS: usize = 8;
const MAX_ENVIRONMENTS: usize = 32;
/// Time limit for the search.
const TIME: Duration = Duration::from_millis(1_500);
/// Type of the file system of namespaces.
const NAMESPACES: FsWord = 0x6e73_6673;
/// The state of a socket that listens, in `/proc/net/tcp`.
const LISTENS: &str = "0A";

/// The tables of the sockets of one network namespace. They remain tables of this namespace after the process has
/// entered another namespace.
pub(super) struct Tables(Vec<File>);

/// A loopback address, and the sockets that listen on it.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) address: SocketAddr,
    sockets: BTreeSet<u64>,
}

/// The processes of a pod.
pub(super) struct Pod {
    processes: Vec<Process>,
    /// Whether the pod may have more processes than were read.
    is_cut: bool,
    end: Instant,
}

/// One process of the pod: a descriptor of its folder in `/proc`.
struct Process {
    folder: OwnedFd,
}

impl Pod {
    /// Finds the processes.
    ///
    /// # Errors
    ///
    /// Fails if `/proc` cannot be read in time.
    pub(super) fn find(proc: &Path, pod_uid: &str) -> io::Result<Self> {
        let end = Instant::now() + TIME;
        let mut processes = Vec::new();
        let own = own_cgroup(proc);
        for pid in files::pids(proc)? {
            in_time(end)?;
            let process = Process::open(proc, pid).ok();
            processes.extend(process.filter(|process| process.pod_uid(&own).as_deref() == Some(pod_uid)));
            if processes.len() == MAX_PROCESSES {
                break;
            }
        }
        Ok(Self { is_cut: processes.len() == MAX_PROCESSES, processes, end })
    }

    /// Returns the network namespaces of the processes. The containers of a pod usually share one namespace.
    pub(super) fn networks(&self) -> Vec<Network> {
        let mut networks = BTreeMap::new();
        for process in &self.processes {
            if let Ok((name, file)) = process.network() {
                networks.entry(name).or_insert(file);
            }
        }
        networks.into_values().take(MAX_NETWORKS).collect()
    }

    /// Finds the listening sockets in these tables. `None` if nothing listens on the port.
    ///
    /// # Errors
    ///
    /// Fails if the tables or the descriptors cannot be read in time, or if other processes listen on the same port. In
    /// the network of the host, they can belong to another job.
    pub(super) fn listener(&self, tables: &Tables) -> io::Result<Option<Listener>> {
        let port = self.port();
        let found = tables.listening(port)?;
        let Some(address) = found.keys().next().copied() else { return Ok(None) };
        // Several processes can share a port. All of them must belong to the pod.
        let sockets: BTreeSet<u64> = found.into_values().flatten().collect();
        let mut others = sockets.clone();
        let mut is_cut = self.is_cut;
        for owner in &self.processes {
            is_cut |= owner.remove_own(&mut others, self.end)?;
        }
        if !others.is_empty() {
            let why = match is_cut {
                true => "may belong to another pod: the pod has too many processes or open files to read all of them",
                false => "is also used by a process outside of the pod",
            };
            return Err(io::Error::other(format!("port {port} {why}")));
        }
        Ok(Some(Listener { address, sockets }))
    }

    /// Returns the port in the environment of the first processes. Reading an environment waits for a lock of its
    /// process, so only some environments are read. The parent of this process limits the time.
    fn port(&self) -> u16 {
        let in_time = |_: &&Process| Instant::now() < self.end;
        self.processes.iter().take(MAX_ENVIRONMENTS).take_while(in_time).find_map(Process::port).unwrap_or(PORT)
    }
}

impl Listener {
    /// Returns an error if different sockets than before listen on the port.
    pub(super) fn check(&self, tables: &Tables) -> io::Result<()> {
        let now = tables.listening(self.address.port())?;
        let is_same =
            now.contains_key(&self.address) && now.into_values().flatten().all(|one| self.sockets.contains(&one));
        if is_same { Ok(()) } else { Err(io::Error::other("different sockets than before listen on the port")) }
    }
}

impl Tables {
    /// Opens the socket tables in the folder `net` of a process.
    ///
    /// # Errors
    ///
    /// Fails if none of them can be opened.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        let tcp = File::open(folder.join("tcp"))?;
        // A kernel without IPv6 has only one table.
        Ok(Self(std::iter::once(tcp).chain(File::open(folder.join("tcp6"))).collect()))
    }

    /// Returns the loopback addresses with this port on which a process listens, with the inodes of the sockets.
    fn listening(&self, port: u16) -> io::Result<BTreeMap<SocketAddr, BTreeSet<u64>>> {
        let mut found: BTreeMap<SocketAddr, BTreeSet<u64>> = BTreeMap::new();
        for mut table in &self.0 {
            table.rewind()?;
            let mut text = Vec::new();
            table.take(MAX_TABLE + 1).read_to_end(&mut text)?;
            if text.len() as u64 > MAX_TABLE {
                return Err(io::Error::other("the network of the pod has too many sockets"));
            }
            for line in String::from_utf8_lossy(&text).lines().skip(1) {
                if let Some((address, inode)) = socket(line).filter(|(address, _)| address.port() == port) {
                    found.entry(address).or_default().insert(inode);
                }
            }
        }
        Ok(found)
    }
}

/// A network namespace: a file of the kernel. In a saved tree, it is an ordinary file.
pub(super) struct Network {
    pub(super) file: OwnedFd,
    pub(super) is_namespace: bool,
}

fn in_time(end: Instant) -> io::Result<()> {
    match Instant::now() < end {
        true => Ok(()),
        false => Err(io::Error::new(io::ErrorKind::TimedOut, "the processes of the pod were not read in time")),
    }
}

impl Process {
    fn open(proc: &Path, pid: u32) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { folder: openat(CWD, proc.join(pid.to_string()), flags, Mode::empty())? })
    }

    fn read(&self, name: &str, most: u64) -> io::Result<Vec<u8>> {
        let file = openat(&self.folder, name, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?;
        let mut data = Vec::new();
        File::from(file).take(most).read_to_end(&mut data)?;
        Ok(data)
    }

    fn pod_uid(&self, own: &str) -> Option<String> {
        cgroup::parse(&String::from_utf8_lossy(&self.read("cgroup", MAX_FILE).ok()?), own).pod_uid
    }

    /// Returns the port in the environment with which the process was started, if the address of the port can be a
    /// loopback address.
    fn port(&self) -> Option<u16> {
        let environment = self.read("environ", MAX_FILE).ok()?;
        let value = environment.split(|byte| *byte == 0).find_map(|variable| variable.strip_prefix(ADDRESS))?;
        let (host, port) = str::from_utf8(value).ok()?.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let is_here = |address: IpAddr| address.is_loopback() || address.is_unspecified();
        (host == "localhost" || host.parse().is_ok_and(is_here)).then(|| port.parse().ok()).flatten()
    }

    /// Removes the sockets that the process has open. Returns whether it has too many descriptors to read all of them.
    fn remove_own(&self, sockets: &mut BTreeSet<u64>, end: Instant) -> io::Result<bool> {
        let Ok(folder) =
            openat(&self.folder, "fd", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        else {
            return Ok(false);
        };
        for (number, entry) in Dir::read_from(&folder)?.flatten().enumerate() {
            if sockets.is_empty() {
                break;
            }
            if number == MAX_DESCRIPTORS {
                return Ok(true);
            }
            in_time(end)?;
            let Ok(link) = readlinkat(&folder, entry.file_name(), Vec::new()) else { continue };
            let inode =
                link.to_str().ok().and_then(|link| link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            inode.map(|inode: u64| sockets.remove(&inode));
        }
        Ok(false)
    }

    /// Opens the network namespace. Returns it with its device and inode, which identify it.
    fn network(&self) -> io::Result<((u64, u64), Network)> {
        let file = openat(&self.folder, "ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let Stat { st_dev, st_ino, .. } = fstat(&file)?;
        let is_namespace = fstatfs(&file)?.f_type == NAMESPACES;
        Ok(((st_dev, st_ino), Network { file, is_namespace }))
    }
}

/// Parses a line of `/proc/net/tcp`: the loopback address of a listening socket, and its inode.
fn socket(line: &str) -> Option<(SocketAddr, u64)> {
    let mut words = line.split_whitespace().skip(1);
    let (address, state, inode) = (words.next()?, words.nth(1)?, words.nth(5)?);
    let (host, port) = address.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // The kernel prints each group of four bytes in the byte order of the machine.
    let word = |at: usize| u32::from_str_radix(host.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    let host: IpAddr = match host.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let bytes: Vec<u8> = [word(0)?, word(8)?, word(16)?, word(24)?].concat();
            Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_canonical()
        }
        _ => return None,
    };
    let host = match host {
        host if host.is_loopback() => host,
        IpAddr::V4(host) if host.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(host) if host.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        _ => return None,
    };
    (state == LISTENS).then_some((SocketAddr::new(host, port), inode.parse().ok()?))
}
