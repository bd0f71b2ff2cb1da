//! One source for several instruction sets: inner loops are compiled for each, and the processor decides which runs.

/// An instruction set that this processor has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Simd(Set);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Set {
    /// What the build is for; products and sums are fused only where every such processor can.
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

/// A loop nest. `run` must be `#[inline(always)]`, so that it takes on its caller's instruction set.
pub(crate) trait Kernel {
    /// Runs it; `FUSED` says whether fused multiply-add is an instruction.
    fn run<const FUSED: bool>(self);
}

impl Simd {
    /// What every processor that the build is for can do.
    #[cfg(test)]
    pub(crate) const PORTABLE: Self = Self(Set::Portable);

    /// The widest that this processor has.
    pub(crate) fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("fma") {
                return Self(Set::Avx512);
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Self(Set::Avx2);
            }
        }
        Self(Set::Portable)
    }

    /// All that this processor has.
    #[cfg(test)]
    pub(crate) fn all() -> Vec<Self> {
        #[cfg(target_arch = "x86_64")]
        if Self::best().0 == Set::Avx512 {
            return vec![Self::PORTABLE, Self(Set::Avx2), Self(Set::Avx512)];
        }
        if Self::best() == Self::PORTABLE { vec![Self::PORTABLE] } else { vec![Self::PORTABLE, Self::best()] }
    }

    /// Whether results are those of fused multiply-add.
    #[cfg(test)]
    pub(crate) fn fused(self) -> bool {
        self.0 != Set::Portable || cfg!(target_arch = "aarch64")
    }

    /// Runs `kernel` with this instruction set.
    pub(crate) fn run(self, kernel: impl Kernel) {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: only `best` and `all` make this value, where the processor has the features.
            Set::Avx512 => unsafe { run_avx512(kernel) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Set::Avx2 => unsafe { run_avx2(kernel) },
            Set::Portable => kernel.run::<{ cfg!(target_arch = "aarch64") }>(),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
fn run_avx512(kernel: impl Kernel) {
    kernel.run::<true>();
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn run_avx2(kernel: impl Kernel) {
    kernel.run::<true>();
}
