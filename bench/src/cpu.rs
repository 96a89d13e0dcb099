//! What each program spends of the processors, read from `/proc`.

use std::collections::BTreeMap;

/// Ticks of `/proc/<pid>/stat` in a second: `USER_HZ`, 100 on every Linux of today.
const TICKS_PER_SECOND: f64 = 100.0;

/// Servers that others started, by the name the kernel knows them under.
const SERVERS: [(&str, &str); 2] = [("postgres", "postgres"), ("beam.smp", "rabbitmq")];

/// Ticks so far of each process of interest, under its label.
#[derive(Debug, Default)]
pub struct Cpu(BTreeMap<u32, (String, u64)>);

impl Cpu {
    /// Reads it for the processes given, for this one as `load`, and for Postgres and RabbitMQ.
    pub fn now(processes: &[(String, u32)]) -> Self {
        let own = std::process::id();
        let label = |pid: u32, name: &str| {
            if pid == own {
                return Some("load".to_owned());
            }
            let known = processes.iter().find(|(_, known)| *known == pid);
            let server = || SERVERS.iter().find(|(server, _)| *server == name);
            known.map(|(label, _)| label.clone()).or_else(|| Some(server()?.1.to_owned()))
        };
        let Ok(entries) = std::fs::read_dir("/proc") else { return Self::default() };
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let read = |pid: u32| {
            let (name, ticks) = ticks(pid)?;
            Some((pid, (label(pid, &name)?, ticks)))
        };
        Self(pids.filter_map(read).collect())
    }

    /// Seconds spent since `before`, by label.
    pub fn since(&self, before: &Self) -> BTreeMap<String, f64> {
        let mut spent = BTreeMap::new();
        for (pid, (label, ticks)) in &self.0 {
            let began = before.0.get(pid).map_or(0, |(_, ticks)| *ticks);
            #[expect(clippy::cast_precision_loss, reason = "ticks stay far below 2^52")]
            let seconds = ticks.saturating_sub(began) as f64 / TICKS_PER_SECOND;
            *spent.entry(label.clone()).or_default() += seconds;
        }
        spent
    }
}

/// Name and ticks, user and system, of a process.
///
/// Source: proc_pid_stat(5). The name stands in parentheses and may hold any character.
fn ticks(pid: u32) -> Option<(String, u64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, tail) = stat.rsplit_once(')')?;
    let name = head.split_once('(')?.1.to_owned();
    // The state is field 3; utime and stime are fields 14 and 15.
    let mut times = tail.split_whitespace().skip(11).map(str::parse::<u64>);
    Some((name, times.next()?.ok()? + times.next()?.ok()?))
}
