import Bytes
import Testing

@Suite("ByteQueue")
struct ByteQueueTests {
    private func content(_ queue: borrowing ByteQueue) -> [UInt8] { queue.withReadable { Array($0) } }

    @Test("returns the appended bytes in order, across growth and moves to the front")
    func order() {
        var queue = ByteQueue()
        var expected: [UInt8] = []
        var next: UInt8 = 0
        for round in 0..<2_000 {
            let size = (round * 37) % 700
            let bytes = (0..<size).map { _ in
                next &+= 1
                return next
            }
            queue.append(bytes)
            expected += bytes
            let drop = min(expected.count, (round * 53) % 800)
            #expect(content(queue).prefix(drop).elementsEqual(expected.prefix(drop)))
            queue.consume(drop)
            expected.removeFirst(drop)
            #expect(queue.count == expected.count)
        }
        #expect(content(queue) == expected)
    }

    @Test("appends integers in network byte order")
    func integers() {
        var queue = ByteQueue()
        queue.append(UInt8(1))
        queue.append(UInt16(0x0203))
        queue.append(UInt32(0x0405_0607))
        queue.append(UInt64(0x0809_0A0B_0C0D_0E0F))
        #expect(content(queue) == Array(1...15))
    }

    @Test("releases its memory only when it is empty")
    func release() {
        var queue = ByteQueue()
        queue.append([1, 2, 3])
        queue.releaseStorageIfEmpty()
        #expect(content(queue) == [1, 2, 3])
        queue.consume(3)
        queue.releaseStorageIfEmpty()
        #expect(queue.capacity == 0)
        queue.append([4])
        #expect(content(queue) == [4])
    }

    @Test("moves bytes from another queue")
    func take() {
        var one = ByteQueue()
        var other = ByteQueue()
        one.append([1, 2])
        other.append([3, 4, 5])
        one.take(2, from: &other)
        #expect(content(one) == [1, 2, 3, 4])
        #expect(content(other) == [5])
    }

    @Test("traps when a caller consumes more bytes than it holds")
    func overconsumption() async {
        await #expect(processExitsWith: .failure) {
            var queue = ByteQueue()
            queue.append([1])
            queue.consume(2)
        }
    }
}
