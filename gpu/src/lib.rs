//! psyche-gpu
