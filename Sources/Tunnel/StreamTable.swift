/// The streams of a link in slots, with an index from stream id to slot.
///
/// Ids count up, so their low bits spread evenly over the index and need no hashing. The index uses open addressing
/// with linear probing, and deletion moves entries back (Knuth, The Art of Computer Programming 3, 6.4, algorithm R).
struct StreamTable: ~Copyable {
    private var slots: UnsafeMutablePointer<Stream>
    private var isLive: [Bool]
    private var free: [Int] = []
    private var used = 0
    private var capacity: Int
    /// The slot of each index cell, or -1.
    private var index: [Int32]
    private var ids: [UInt32]
    private(set) var count = 0

    init() {
        self.capacity = 4
        self.slots = .allocate(capacity: 4)
        self.isLive = [Bool](repeating: false, count: 4)
        self.index = [Int32](repeating: -1, count: 16)
        self.ids = [UInt32](repeating: 0, count: 16)
    }

    deinit {
        for slot in 0..<self.used where self.isLive[slot] { (self.slots + slot).deinitialize(count: 1) }
        self.slots.deallocate()
    }

    /// All live slots are below this number.
    var slotLimit: Int { self.used }

    func isLive(_ slot: Int) -> Bool { slot < self.used && self.isLive[slot] }

    func contains(_ key: StreamKey) -> Bool {
        key.slot >= 0 && self.isLive(key.slot) && self.slots[key.slot].id == key.id
    }

    subscript(slot: Int) -> Stream {
        _read {
            precondition(self.isLive(slot), "no stream in this slot")
            yield self.slots[slot]
        }
        _modify {
            precondition(self.isLive(slot), "no stream in this slot")
            yield &self.slots[slot]
        }
    }

    func slot(of id: UInt32) -> Int? {
        let mask = self.index.count - 1
        var cell = Int(id) & mask
        while self.index[cell] >= 0 {
            if self.ids[cell] == id { return Int(self.index[cell]) }
            cell = (cell + 1) & mask
        }
        return nil
    }

    mutating func insert(_ stream: consuming Stream) -> Int {
        let id = stream.id
        let slot: Int
        if let reused = self.free.popLast() {
            slot = reused
        } else {
            if self.used == self.capacity { self.grow() }
            slot = self.used
            self.used += 1
        }
        (self.slots + slot).initialize(to: stream)
        self.isLive[slot] = true
        self.count += 1
        self.place(id, slot)
        return slot
    }

    mutating func remove(_ slot: Int) {
        precondition(self.isLive(slot), "removing a stream twice")
        self.unplace(self.slots[slot].id)
        (self.slots + slot).deinitialize(count: 1)
        self.isLive[slot] = false
        self.count -= 1
        if self.count == 0 {
            self.free.removeAll(keepingCapacity: true)
            self.used = 0
        } else {
            self.free.append(slot)
        }
    }

    private mutating func grow() {
        let larger = UnsafeMutablePointer<Stream>.allocate(capacity: self.capacity * 2)
        larger.moveInitialize(from: self.slots, count: self.used)
        self.slots.deallocate()
        self.slots = larger
        self.capacity *= 2
        self.isLive += [Bool](repeating: false, count: self.capacity - self.isLive.count)
        self.index = [Int32](repeating: -1, count: self.capacity * 4)
        self.ids = [UInt32](repeating: 0, count: self.capacity * 4)
        for slot in 0..<self.used where self.isLive[slot] { self.place(self.slots[slot].id, slot) }
    }

    private mutating func place(_ id: UInt32, _ slot: Int) {
        let mask = self.index.count - 1
        var cell = Int(id) & mask
        while self.index[cell] >= 0 { cell = (cell + 1) & mask }
        self.index[cell] = Int32(slot)
        self.ids[cell] = id
    }

    private mutating func unplace(_ id: UInt32) {
        let mask = self.index.count - 1
        var hole = Int(id) & mask
        while self.index[hole] < 0 || self.ids[hole] != id { hole = (hole + 1) & mask }
        var cell = hole
        while true {
            self.index[hole] = -1
            repeat {
                cell = (cell + 1) & mask
                if self.index[cell] < 0 { return }
                // An entry may move back to the hole unless its home cell is cyclically between the hole and the entry.
            } while isBetween(Int(self.ids[cell]) & mask, after: hole, upTo: cell)
            self.index[hole] = self.index[cell]
            self.ids[hole] = self.ids[cell]
            hole = cell
        }
    }

    private func isBetween(_ home: Int, after hole: Int, upTo cell: Int) -> Bool {
        hole <= cell ? (hole < home && home <= cell) : (hole < home || home <= cell)
    }
}
