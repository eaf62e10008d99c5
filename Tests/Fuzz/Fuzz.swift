import Glibc

/// The fuzz targets: one function for each directory of `Tests/Fuzz/Corpora`.
///
/// A target returns a number that depends on its result. It traps if an invariant does not hold.
private let targets: [String: @Sendable ([UInt8]) -> Int] = [
    "agents-file": fuzzAgentsFile,
    "control": fuzzControl,
    "frames": fuzzFrames,
    "hook-answer": fuzzHookAnswer,
    "http": fuzzHTTP,
    "link": fuzzLink,
    "link-pair": fuzzLinkPair,
    "names": fuzzNames,
    "proxy-header": fuzzProxyHeader,
    "toml": fuzzTOML,
    "version1": fuzzVersion1,
]

/// The target of this process, named by `$DIGLETT_FUZZ_TARGET`.
private let target: @Sendable ([UInt8]) -> Int = {
    let name = getenv("DIGLETT_FUZZ_TARGET").map { String(cString: $0) } ?? ""
    guard let target = targets[name] else {
        fatalError("unknown target '\(name)': use \(targets.keys.sorted().joined(separator: ", "))")
    }
    return target
}()

/// Keeps the optimizer from removing a target because its result is unused.
nonisolated(unsafe) private var sink = 0

@_cdecl("LLVMFuzzerTestOneInput")
func testOneInput(_ data: UnsafePointer<UInt8>?, _ size: Int) -> CInt {
    sink &+= target(Array(UnsafeBufferPointer(start: data, count: size)))
    return 0
}

/// Ends the run if the invariant does not hold. libFuzzer reports that as a crash.
func check(_ holds: Bool, _ invariant: @autoclosure () -> String) {
    guard !holds else { return }
    fatalError(invariant())
}

/// An input, read as a sequence of choices. After its end every choice is 0.
struct Choices {
    private var rest: ArraySlice<UInt8>

    init(_ bytes: [UInt8]) { self.rest = bytes[...] }

    var isEmpty: Bool { self.rest.isEmpty }

    mutating func byte() -> UInt8 { self.rest.popFirst() ?? 0 }

    mutating func number(below limit: Int) -> Int { limit <= 0 ? 0 : Int(self.byte()) % limit }

    mutating func word16() -> UInt16 { UInt16(self.byte()) << 8 | UInt16(self.byte()) }

    mutating func word32() -> UInt32 { UInt32(self.word16()) << 16 | UInt32(self.word16()) }

    mutating func word64() -> UInt64 { UInt64(self.word32()) << 32 | UInt64(self.word32()) }

    /// At most `atMost` bytes. The next byte gives their number.
    mutating func bytes(atMost: Int) -> [UInt8] {
        let count = min(Int(self.byte()), atMost, self.rest.count)
        defer { self.rest = self.rest.dropFirst(count) }
        return Array(self.rest.prefix(count))
    }

    mutating func element<Element>(of elements: [Element]) -> Element {
        elements[self.number(below: elements.count)]
    }
}
