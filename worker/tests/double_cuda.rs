//! The double of libcuda, driven by cudarc as the product drives the driver, and by calls that break its contracts.

#[path = "support/double.rs"]
mod double;

use double::Driver;

#[test]
fn a_driver_folder_holds_what_the_loader_asks_for() {
    let driver = Driver::new().gpus(2).fault("cuda.alloc code=2");
    for name in ["libcuda.so.1", "libcuda.so", "libnvcuvid.so.1", "libnvidia-encode.so.1", "libnvidia-ml.so.1"] {
        assert!(driver.folder().join(name).is_file(), "{name}");
    }
    assert!(!Driver::new().without("libcuda.so.1").folder().join("libcuda.so").exists());
    driver.assert_clean();
}
