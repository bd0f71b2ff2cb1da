//! Which devices ranks get on machines of all kinds, none of which has to be this one.

use super::*;

fn cuda(index: usize, compute_capability: (i32, i32)) -> CudaDevice {
    CudaDevice {
        index,
        name: "Card".to_owned(),
        memory_bytes: 80 << 30,
        memory_free_bytes: Some(70 << 30),
        compute_capability,
        peers: Vec::new(),
    }
}

/// A machine of 8 cores with CUDA devices of these capabilities.
fn machine(capabilities: &[(i32, i32)]) -> Machine {
    let devices = capabilities.iter().enumerate().map(|(index, &capability)| cuda(index, capability)).collect();
    Machine { cpu: cpu(8), cuda: CudaReport::Devices(Driver { release: None, cuda: (13, 0) }, devices) }
}

fn without_driver() -> Machine {
    Machine { cpu: cpu(8), cuda: CudaReport::NoDriver }
}

fn place(spec: &str, (dp, tp): (usize, usize), machine: &Machine) -> Result<Placement, GpuError> {
    spec.parse::<DeviceSpec>().unwrap().place(Topology::new(dp, tp).unwrap(), machine, || Ok(()))
}

fn devices(spec: &str, layout: (usize, usize), machine: &Machine) -> Vec<Device> {
    place(spec, layout, machine).unwrap().seats.iter().map(|seat| seat.device).collect()
}

/// The refusal, which must hold all of `parts`.
fn assert_refused(spec: &str, layout: (usize, usize), machine: &Machine, parts: &[&str]) {
    let error = place(spec, layout, machine).unwrap_err();
    assert!(matches!(error, GpuError::Device { .. }), "{error:?}");
    for part in parts {
        assert!(error.to_string().contains(part), "{spec} {layout:?}: {part:?} in {error}");
    }
}

const GOOD: (i32, i32) = (9, 0);
const OLD: (i32, i32) = (7, 0);

#[test]
fn auto_takes_cuda_where_it_works_and_the_cpu_elsewhere() {
    use Device::{Cpu, Cuda};
    assert_eq!(devices("auto", (2, 1), &machine(&[GOOD, GOOD, GOOD])), [Cuda(0), Cuda(1)]);
    assert_eq!(devices("auto", (1, 2), &machine(&[OLD, GOOD, GOOD])), [Cuda(1), Cuda(2)]);
    let plain = place("auto", (2, 1), &without_driver()).unwrap();
    assert!(plain.warnings.is_empty(), "a machine without a driver is an ordinary one: {:?}", plain.warnings);
    assert!(plain.seats.iter().all(|seat| seat.device == Cpu));
    let broken = Machine { cuda: CudaReport::Broken("CUDA_ERROR_UNKNOWN".to_owned()), ..without_driver() };
    for (machine, reason) in [(machine(&[OLD]), "7.0"), (machine(&[]), "CUDA_VISIBLE_DEVICES"), (broken, "CUDA_ERROR_UNKNOWN")]
    {
        let placement = place("auto", (1, 1), &machine).unwrap();
        assert_eq!(placement.seats[0].device, Cpu);
        assert!(placement.warnings.iter().any(|warning| warning.contains(reason)), "{:?}", placement.warnings);
    }
}

#[test]
fn auto_takes_the_cpu_where_libtorchs_cuda_half_does_not_load_and_cuda_is_refused() {
    let missing = || Err(GpuError::NoTorchCuda { reason: "libcusparse.so.12: no such file".to_owned() });
    let topology = Topology::new(2, 1).unwrap();
    let machine = machine(&[GOOD, GOOD]);
    let placement = DeviceSpec::Auto.place(topology, &machine, missing).unwrap();
    assert!(placement.seats.iter().all(|seat| seat.device == Device::Cpu));
    assert!(placement.warnings[0].contains("libcusparse"), "{:?}", placement.warnings);
    let error = DeviceSpec::Cuda(None).place(topology, &machine, missing).unwrap_err();
    assert!(matches!(error, GpuError::NoTorchCuda { .. }), "{error:?}");
    assert!(error.to_string().contains("libcusparse") && error.to_string().contains("DEVICE=cpu"), "{error}");
}

#[test]
fn nothing_is_loaded_for_the_cpu_nor_for_what_is_refused() {
    let never = || -> Result<(), GpuError> { panic!("nothing of CUDA is needed") };
    let topology = Topology::new(2, 1).unwrap();
    assert!(DeviceSpec::Cpu(None).place(topology, &machine(&[GOOD]), never).is_ok());
    assert!(DeviceSpec::Auto.place(topology, &without_driver(), never).is_ok());
    assert!(DeviceSpec::Cuda(None).place(topology, &machine(&[GOOD]), never).is_err());
    assert!(DeviceSpec::Auto.place(topology, &machine(&[GOOD]), never).is_err());
}

#[test]
fn cuda_devices_are_taken_in_the_order_in_which_they_are_named() {
    use Device::Cuda;
    let four = machine(&[GOOD; 4]);
    assert_eq!(devices("cuda:2,0", (2, 1), &four), [Cuda(2), Cuda(0)]);
    assert_eq!(devices("cuda:2,0,3", (1, 1), &four), [Cuda(2)]);
    assert_eq!(devices("cuda", (2, 2), &four), [Cuda(0), Cuda(1), Cuda(2), Cuda(3)]);
    assert_eq!(devices("cuda", (1, 1), &machine(&[OLD, GOOD])), [Cuda(1)]);
}

#[test]
fn devices_that_are_not_there_are_refused_with_the_numbers() {
    assert_refused(
        "cuda:9",
        (1, 1),
        &machine(&[GOOD, GOOD]),
        &["cuda:9", "no device 9", "2 here (0,1)", "CUDA_VISIBLE_DEVICES"],
    );
    assert_refused("cuda:1", (1, 1), &machine(&[GOOD, OLD]), &["7.0", "7.5"]);
    assert_refused("cuda", (1, 1), &machine(&[OLD]), &["7.0", "7.5", "DEVICE=cpu"]);
    assert_refused("cuda", (1, 1), &without_driver(), &["no NVIDIA driver", "DEVICE=cpu"]);
    assert_refused("cuda:0", (1, 1), &machine(&[]), &["no device", "CUDA_VISIBLE_DEVICES"]);
}

#[test]
fn layouts_larger_than_the_machine_are_refused_with_one_that_fits() {
    let two = machine(&[GOOD, GOOD]);
    let fits = "DATA_PARALLELISM=1 TENSOR_PARALLELISM=2 would fit";
    assert_refused(
        "cuda",
        (2, 2),
        &two,
        &["DATA_PARALLELISM 2 × TENSOR_PARALLELISM 2 are 4 ranks", "2 usable CUDA devices", fits],
    );
    assert_refused("auto", (4, 1), &two, &["4 ranks", "DATA_PARALLELISM=2 TENSOR_PARALLELISM=1 would fit"]);
    assert_refused("cuda:1", (1, 4), &two, &["1 usable", "DATA_PARALLELISM=1 TENSOR_PARALLELISM=1 would fit"]);
    assert_refused("cpu:3", (2, 2), &two, &["4 ranks", "3 CPU devices", fits]);
    assert_refused("cpu:7", (1, 8), &two, &["DATA_PARALLELISM=1 TENSOR_PARALLELISM=4 would fit"]);
}

#[test]
fn cpu_devices_serve_as_many_ranks_as_they_are() {
    assert_eq!(devices("cpu:4", (3, 1), &without_driver()), [Device::Cpu; 3]);
    assert_eq!(devices("cpu", (2, 2), &machine(&[GOOD; 4])), [Device::Cpu; 4]);
}

#[test]
fn more_cpu_devices_than_cores_are_warned_of() {
    assert!(place("cpu", (8, 1), &without_driver()).unwrap().warnings.is_empty());
    let warnings = place("cpu", (16, 1), &without_driver()).unwrap().warnings;
    assert!(warnings.len() == 1 && warnings[0].contains("16 CPU devices") && warnings[0].contains("8 cores"), "{warnings:?}");
}

#[test]
fn a_placement_is_told_in_one_line() {
    let cpu = place("cpu", (2, 1), &without_driver()).unwrap().to_string();
    assert_eq!(cpu, "cpu (4 threads on cores 0-3), cpu (4 threads on cores 4-7)");
    assert_eq!(place("cuda", (2, 1), &machine(&[GOOD, GOOD])).unwrap().to_string(), "cuda:0, cuda:1");
}

proptest! {
    #[test]
    fn prop_a_layout_that_is_proposed_fits(dp in 1_usize..16, tp in 1_usize..16, devices in 1_usize..32) {
        let spec = DeviceSpec::Cpu(Some(devices));
        let topology = Topology::new(dp, tp).unwrap();
        if let Err(error) = spec.place(topology, &without_driver(), || Ok(())) {
            prop_assert!(dp * tp > devices);
            let text = error.to_string();
            let number = |name: &str| -> usize {
                let rest = text.split(name).nth(1).unwrap();
                rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
            };
            let (fitting_dp, fitting_tp) = (number("DATA_PARALLELISM="), number("TENSOR_PARALLELISM="));
            prop_assert!(fitting_dp >= 1 && fitting_dp <= dp && tp % fitting_tp == 0 && fitting_dp * fitting_tp <= devices);
        } else {
            prop_assert!(dp * tp <= devices);
        }
    }
}
