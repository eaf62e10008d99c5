/// Finds, among many patterns, one that overlaps with a given pattern.
///
/// Two patterns can overlap only if the text before the first `*` of one is a prefix of that of the other, and the text
/// after the last `*` of one is a suffix of that of the other. Of these two conditions, the one with fewer candidates
/// is used.
struct PatternIndex {
    private var patterns: [(pattern: NamePattern, owner: Int)] = []
    private var beginnings = Side()
    private var endings = Side()

    mutating func insert(_ pattern: NamePattern, of owner: Int) {
        let number = Int32(self.patterns.count)
        self.patterns.append((pattern, owner))
        self.beginnings.insert(pattern.literalPrefix, number)
        self.endings.insert(pattern.literalSuffix.reversed(), number)
    }

    func overlap(with pattern: NamePattern) -> (NamePattern, owner: Int)? {
        let byBeginning = self.beginnings.candidates(pattern.literalPrefix)
        let byEnding = self.endings.candidates(pattern.literalSuffix.reversed())
        let candidates = byBeginning.count <= byEnding.count ? byBeginning : byEnding
        for list in candidates.lists {
            for number in list where self.patterns[Int(number)].pattern.overlaps(pattern) {
                return self.patterns[Int(number)]
            }
        }
        return nil
    }

    /// Patterns by their literal text at one end.
    ///
    /// The keys are hashes, because each text is looked up with all its prefixes. A collision only costs a comparison.
    private struct Side {
        /// By the hash of the whole text.
        private var byText: [UInt64: [Int32]] = [:]
        /// By the hashes of all its prefixes, including the whole text.
        private var byBeginning: [UInt64: [Int32]] = [:]

        mutating func insert(_ text: some Sequence<UInt8>, _ number: Int32) {
            let hashes = Self.hashes(text)
            self.byText[hashes[hashes.count - 1], default: []].append(number)
            for hash in hashes { self.byBeginning[hash, default: []].append(number) }
        }

        /// Patterns whose text begins with this one, or is a prefix of it.
        func candidates(_ text: some Sequence<UInt8>) -> (lists: [[Int32]], count: Int) {
            let hashes = Self.hashes(text)
            var lists = hashes.dropLast().compactMap { self.byText[$0] }
            if let longer = self.byBeginning[hashes[hashes.count - 1]] { lists.append(longer) }
            return (lists, lists.reduce(0) { $0 + $1.count })
        }

        /// FNV-1a hashes (RFC 9923) of all prefixes, the empty one first.
        private static func hashes(_ text: some Sequence<UInt8>) -> [UInt64] {
            var hash: UInt64 = 0xCBF2_9CE4_8422_2325
            var result = [hash]
            for byte in text {
                hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3
                result.append(hash)
            }
            return result
        }
    }
}
