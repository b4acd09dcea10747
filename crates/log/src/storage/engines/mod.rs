//! The engines, side by side: one on a disk, one in memory, one in front of another; for tests one
//! that fails on order, and the suite that every engine must pass.

#[cfg(any(test, feature = "testing"))]
pub mod conformance;
#[cfg(any(test, feature = "testing"))]
pub mod faulty;
pub mod intercept;
pub mod local;
pub mod memory;
