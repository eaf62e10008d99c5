/// Finds among many patterns one that has a name in common with another.
///
/// Two patterns can meet only if what the one has before its first `*` begins with what the other has there, or the
/// other way round, and likewise for what they have behind their last `*`. Of the two sides, the one that leaves fewer to
/// be compared is taken.
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

    /// Patterns by the literal text at one of their ends.
    ///
    /// The keys are hashes, as each text is looked up with all its beginnings: two texts with one hash only cost a
    /// comparison.
    private struct Side {
        /// By the whole text.
        private var byText: [UInt64: [Int32]] = [:]
        /// By each beginning of it, the whole of it included.
        private var byBeginning: [UInt64: [Int32]] = [:]

        mutating func insert(_ text: some Sequence<UInt8>, _ number: Int32) {
            let hashes = Self.hashes(text)
            self.byText[hashes[hashes.count - 1], default: []].append(number)
            for hash in hashes { self.byBeginning[hash, default: []].append(number) }
        }

        /// Those whose text begins with this one, or is a beginning of it.
        func candidates(_ text: some Sequence<UInt8>) -> (lists: [[Int32]], count: Int) {
            let hashes = Self.hashes(text)
            var lists = hashes.dropLast().compactMap { self.byText[$0] }
            if let longer = self.byBeginning[hashes[hashes.count - 1]] { lists.append(longer) }
            return (lists, lists.reduce(0) { $0 + $1.count })
        }

        /// FNV-1a (RFC 9923) of each beginning, the empty one first.
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
