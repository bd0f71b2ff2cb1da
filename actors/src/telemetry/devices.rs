//! How the devices fare: memory and utilisation, looked at now and then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use psyche_gpu::devices::{CpuReport, CudaReport, Seat, cuda_report, cuda_utilisation};

use super::report::DeviceReport;
use super::tally::Tally;

/// How often the devices are looked at. A CUDA device has to be woken for it.
const INTERVAL: Duration = Duration::from_secs(3);
/// What the CPU is called.
const CPU: &str = "cpu";
/// Ticks a second in which Linux tells programs what they used of the CPU, on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;

/// Looks at the devices of `seats` for as long as it is polled.
pub(super) async fn follow(seats: Vec<Seat>, tally: Arc<Tally>) {
    let mut ranks = BTreeMap::<String, usize>::new();
    for seat in &seats {
        let name = if seat.is_cuda() { seat.to_string() } else { CPU.to_owned() };
        *ranks.entry(name).or_default() += 1;
    }
    let (mut ticks, mut before) = (tokio::time::interval(INTERVAL), None);
    loop {
        ticks.tick().await;
        let devices = ranks.clone();
        // The driver and the file system may take their time.
        let looked = tokio::task::spawn_blocking(move || look(&devices, before)).await;
        let Ok((devices, used)) = looked else { continue };
        before = used;
        tally.saw_devices(devices);
    }
}

/// What this process has used of the CPU in all, and when that was.
type CpuUsed = Option<(f64, Instant)>;

fn look(ranks: &BTreeMap<String, usize>, before: CpuUsed) -> (Vec<DeviceReport>, CpuUsed) {
    let on_cuda = ranks.keys().any(|name| name != CPU);
    let cuda = if on_cuda { cuda_report() } else { CudaReport::NoDriver };
    let used = std::fs::read_to_string("/proc/self/stat").ok().and_then(|text| cpu_seconds(&text));
    let used = used.map(|seconds| (seconds, Instant::now()));
    let reports = ranks.iter().map(|(name, ranks)| {
        let (memory_bytes, memory_used_bytes, utilisation) = if name == CPU {
            let cpu = CpuReport::read();
            let resident = std::fs::read_to_string("/proc/self/status").ok().and_then(|text| resident_bytes(&text));
            (Some(cpu.memory_bytes), resident, share(before, used, cpu.threads))
        } else {
            let device = cuda.devices().iter().find(|device| *name == format!("cuda:{}", device.index));
            let used = device.and_then(|device| Some(device.memory_bytes.saturating_sub(device.memory_free_bytes?)));
            (device.map(|device| device.memory_bytes), used, device.and_then(|device| cuda_utilisation(device.index)))
        };
        DeviceReport { device: name.clone(), ranks: *ranks, memory_bytes, memory_used_bytes, utilisation }
    });
    (reports.collect(), used)
}

/// Which part of `threads` cores the process used between two looks.
#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "a share from 0 to 1 of a few cores")]
fn share(before: CpuUsed, now: CpuUsed, threads: usize) -> Option<f32> {
    let ((seconds_before, then), (seconds, now)) = (before?, now?);
    let wall = now.saturating_duration_since(then).as_secs_f64() * threads as f64;
    (wall > 0.0).then(|| ((seconds - seconds_before) / wall).clamp(0.0, 1.0) as f32)
}

/// Seconds of the CPU that a process used, of `/proc/…/stat`: the fields after its name, which may hold anything.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system) = (fields.next()?.parse::<f64>().ok()?, fields.next()?.parse::<f64>().ok()?);
    Some((user + system) / TICKS_PER_SECOND)
}

/// Bytes of memory that a process has, of `/proc/…/status`.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_linux_tells_of_a_process_is_read_whatever_its_name_is() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 5 6 7";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!((cpu_seconds(""), cpu_seconds("7 (a) S 1")), (None, None));
        assert_eq!(resident_bytes("Name:\ta\nVmRSS:\t   12 kB\n"), Some(12 * 1024));
        assert_eq!(resident_bytes("VmRSS:"), None);
    }

    #[test]
    fn a_cpu_that_computed_half_of_the_time_is_half_used() {
        let start = Instant::now();
        let after = |seconds, used| Some((used, start + Duration::from_secs(seconds)));
        assert_eq!(share(after(0, 10.0), after(4, 14.0), 2), Some(0.5));
        assert_eq!(share(after(0, 10.0), after(1, 99.0), 2), Some(1.0));
        assert_eq!((share(None, after(1, 1.0), 2), share(after(0, 1.0), after(0, 1.0), 2)), (None, None));
    }
}
