import Foundation

/// The seeds in `DIGLETT_SEEDS`, as `FIRST-LAST` or as one number.
func chosenSeeds(default seeds: ClosedRange<UInt64>) -> ClosedRange<UInt64> {
    guard let text = ProcessInfo.processInfo.environment["DIGLETT_SEEDS"] else { return seeds }
    let numbers = text.split(separator: "-", maxSplits: 1).map { UInt64($0) }
    guard let first = numbers.first ?? nil, let last = numbers.last ?? nil, first <= last else {
        fatalError("DIGLETT_SEEDS is '\(text)': it must be a number, or FIRST-LAST")
    }
    return first...last
}

/// The number of parts into which the seeds of a simulation are divided. The parts run in parallel.
let simulationParts = ProcessInfo.processInfo.activeProcessorCount
