/// A block of memory for bytes in the order of sending.
package final class Block {
    /// In bytes.
    package let size: Int
    package let base: UnsafeMutableRawPointer
    /// Bytes in use, from the beginning. The owner keeps the number while it appends.
    package var count = 0

    package init(size: Int) {
        self.size = size
        self.base = .allocate(byteCount: size, alignment: 64)
    }

    deinit { self.base.deallocate() }
}

/// Blocks for reuse by all links of a loop. Memory that is used again soon is in the cache and needs no page faults.
package final class BlockPool {
    /// Size of a pooled block in bytes.
    package static let blockSize = 64 * 1024
    /// Maximum number of free blocks: 2 MiB stay allocated after a burst.
    private static let maxFree = 32
    private var free: [Block] = []

    package init() {}

    package func take() -> Block { self.free.popLast() ?? Block(size: Self.blockSize) }

    package func give(_ block: Block) {
        guard block.size == Self.blockSize, self.free.count < Self.maxFree else { return }
        block.count = 0
        self.free.append(block)
    }
}
