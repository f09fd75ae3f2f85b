//! Parses the assembler's report on a kernel.
//!
//! NVRTC returns the text of `ptxas -v --warn-on-spills`. It has no other form, so it is read line by line; a figure
//! that is not there is an error, never a zero.

use moac_runtime::artifact::Resources;

/// The report of a successful compilation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) resources: Resources,
    /// `C75xx` lines: the assembler runs wgmma one after the other, or ignores `setmaxnreg`.
    pub(super) serialised: Vec<String>,
    /// Every warning, of the compiler and of the assembler.
    pub(super) warnings: Vec<String>,
}

/// Reads the report, or names the figure that it lacks.
pub(super) fn read(log: &str) -> Result<Report, &'static str> {
    let mut resources = Resources::default();
    let (mut frame, mut used) = (false, false);
    // Functions that were not inlined have lines of their own; the largest figure is the kernel's.
    for line in log.lines() {
        if let Some(bytes) = before(line, "bytes stack frame") {
            frame = true;
            resources.stack_bytes = resources.stack_bytes.max(bytes);
            let spilled = |what| before(line, what).unwrap_or(0);
            resources.spill_store_bytes = resources.spill_store_bytes.max(spilled("bytes spill stores"));
            resources.spill_load_bytes = resources.spill_load_bytes.max(spilled("bytes spill loads"));
        }
        if let Some(registers) = before(line, "registers") {
            used = true;
            resources.registers = resources.registers.max(registers);
            let figure = |what| before(line, what).unwrap_or(0);
            resources.barriers = resources.barriers.max(figure("barriers"));
            resources.static_shared_bytes = resources.static_shared_bytes.max(figure("bytes smem"));
            resources.stack_bytes = resources.stack_bytes.max(figure("bytes cumulative stack size"));
        }
    }
    match (frame, used) {
        (true, true) => {}
        (false, _) => return Err("stack frame"),
        (_, false) => return Err("registers"),
    }
    let lines = |holds: fn(&str) -> bool| log.lines().filter(|line| holds(line)).map(str::to_owned).collect();
    Ok(Report {
        resources,
        serialised: lines(|line| line.contains("(C75")),
        warnings: lines(|line| line.contains(": warning") || line.starts_with("ptxas warning")),
    })
}

/// The number that stands before `what` in one of the line's comma-separated parts.
fn before(line: &str, what: &str) -> Option<u32> {
    line.split(',').find_map(|part| {
        let number = part.trim_end().strip_suffix(what)?.trim_end();
        number.rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use moac_runtime::artifact::Resources;

    use super::read;

    #[test]
    fn reads_a_clean_report() {
        let log = "\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'k' for 'sm_90a'
ptxas info    : Function properties for k
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 10 registers, used 1 barriers, 256 bytes smem
ptxas info    : Compile time = 2.867 ms
";
        let report = read(log).unwrap();
        let expected =
            Resources { registers: 10, barriers: 1, static_shared_bytes: 256, ..Resources::default() };
        assert_eq!((report.resources, report.serialised.len(), report.warnings.len()), (expected, 0, 0));
    }

    #[test]
    fn reads_spills_stacks_and_older_wordings() {
        let log = "\
ptxas warning : Registers are spilled to local memory in function 'k', 216 bytes spill stores, 220 bytes spill loads
ptxas info    : Function properties for k
    216 bytes stack frame, 216 bytes spill stores, 220 bytes spill loads
ptxas info    : Used 32 registers, used 0 barriers, 416 bytes cumulative stack size, 4096 bytes smem, 380 bytes cmem[0]
ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized in function 'k'
";
        let report = read(log).unwrap();
        let expected = Resources {
            registers: 32,
            stack_bytes: 416,
            spill_store_bytes: 216,
            spill_load_bytes: 220,
            static_shared_bytes: 4096,
            barriers: 0,
        };
        assert_eq!(report.resources, expected);
        assert_eq!((report.serialised.len(), report.warnings.len()), (1, 1));
    }

    #[test]
    fn the_largest_function_counts() {
        let log = "\
    8 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
    0 bytes stack frame, 4 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 32 registers
ptxas info    : Used 16 registers, used 2 barriers
";
        let resources = read(log).unwrap().resources;
        assert_eq!(
            (resources.stack_bytes, resources.spill_store_bytes, resources.registers, resources.barriers),
            (8, 4, 32, 2)
        );
    }

    #[test]
    fn a_missing_figure_is_no_zero() {
        assert_eq!(read(""), Err("stack frame"));
        assert_eq!(
            read("    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads"),
            Err("registers")
        );
    }
}
