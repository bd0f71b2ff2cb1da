#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

use super::*;

#[test]
fn device_names_read_back_as_they_are_written() {
    for text in ["auto", "cpu", "cpu:4", "cuda", "cuda:0", "cuda:3,1"] {
        assert_eq!(text.parse::<DeviceSpec>().unwrap().to_string(), text);
    }
}

#[test]
fn malformed_device_names_are_refused() {
    for text in ["", "gpu", "cpu:0", "cpu:x", "cpu:99999", "cuda:", "cuda:1,1", "cuda:-1", "auto:1", "CPU"] {
        assert!(matches!(text.parse::<DeviceSpec>(), Err(GpuError::Device { .. })), "{text}");
    }
}

#[test]
fn cpu_devices_serve_as_many_ranks_as_they_are() {
    assert_eq!(DeviceSpec::Auto.resolve(3).unwrap(), vec![Device::Cpu; 3]);
    assert_eq!(DeviceSpec::Cpu(Some(4)).resolve(3).unwrap().len(), 3);
    assert!(DeviceSpec::Cpu(Some(2)).resolve(3).is_err());
    assert!(DeviceSpec::Cuda(None).resolve(1).unwrap_err().to_string().contains("CUDA"));
}
