import Bytes
import Foundation
import Secure
import Testing

/// One entry of `Tests/Vectors/version1.json`, in hexadecimal.
private struct Vector: Decodable, CustomTestStringConvertible {
    let agentSecret: String
    let gatewaySecret: String
    let agentHandshake: String
    let gatewayHandshake: String
    let agentPlaintext: String
    let agentCiphertext: String

    var testDescription: String { "secrets …\(self.agentSecret.suffix(4)) and …\(self.gatewaySecret.suffix(4))" }

    static func load() throws -> [Vector] {
        let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .appendingPathComponent("../Vectors/version1.json")
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        return try decoder.decode([Vector].self, from: try Data(contentsOf: file))
    }
}

private func bytes(_ hex: String) throws -> [UInt8] {
    let digits = Array(hex)
    return try stride(from: 0, to: digits.count, by: 2).map {
        try #require(UInt8(String(digits[$0...($0 + 1)]), radix: 16))
    }
}

extension ByteQueue {
    fileprivate mutating func takeAll() -> [UInt8] {
        let all = self.withReadable { Array($0) }
        self.removeAll()
        return all
    }
}

extension Version1Session {
    /// Decrypts `input`. Returns the plaintext and the bytes to send in reply.
    fileprivate func take(_ input: [UInt8]) throws -> (plain: [UInt8], answer: [UInt8]) {
        var plain = [UInt8](repeating: 0, count: input.count + 16_384)
        var answer = ByteQueue()
        let count = try input.withUnsafeBytes { input in
            try plain.withUnsafeMutableBytes { try self.receive(input, into: $0, output: &answer) }
        }
        return (Array(plain[0..<count]), answer.takeAll())
    }

    fileprivate func seal(_ plain: [UInt8]) throws -> [UInt8] {
        var output = ByteQueue()
        try plain.withUnsafeBytes { try self.encrypt($0, output: &output) }
        return output.takeAll()
    }

    fileprivate func greeting() throws -> [UInt8] {
        var output = ByteQueue()
        try self.start(output: &output)
        return output.takeAll()
    }
}

@Suite("Version 1 encryption")
struct Version1Tests {
    @Test("produces the bytes of the test vectors, for any piece size", arguments: try Vector.load())
    fileprivate func vectors(_ vector: Vector) throws {
        for size in [1, 37, 38, 39, 1_000] {
            let agent = try Version1Session(isServer: false, secret: try bytes(vector.agentSecret))
            let gateway = try Version1Session(isServer: true, secret: try bytes(vector.gatewaySecret))
            let greeting = try agent.greeting()
            #expect(try greeting == bytes(vector.agentHandshake))
            #expect(try agent.take(try bytes(vector.gatewayHandshake)).plain == [])
            let sealed = try agent.seal(try bytes(vector.agentPlaintext))
            #expect(try sealed == bytes(vector.agentCiphertext))
            var plain: [UInt8] = []
            var answer: [UInt8] = []
            var rest = (greeting + sealed)[...]
            while !rest.isEmpty {
                let step = try gateway.take(Array(rest.prefix(size)))
                plain += step.plain
                answer += step.answer
                rest = rest.dropFirst(size)
            }
            #expect(try answer == bytes(vector.gatewayHandshake))
            #expect(try plain == bytes(vector.agentPlaintext))
            #expect(try agent.take(try gateway.seal([1, 2, 3])).plain == [1, 2, 3])
        }
    }

    @Test("uses a new key for each connection")
    func freshKeys() throws {
        let one = try Version1Session(isServer: false).greeting()
        let other = try Version1Session(isServer: false).greeting()
        #expect(one.count == 38)
        #expect(one != other)
    }

    /// 33 bytes that are not a point of secp256k1 (SEC 1, 2.3.4).
    private static let noPoints: [[UInt8]] = [
        // x = 5 has no y: 5^3 + 7 is not a square modulo the field's prime.
        [2] + [UInt8](repeating: 0, count: 31) + [5],
        // x is the field's prime.
        [2] + [UInt8](repeating: 0xFF, count: 27) + [0xFE, 0xFF, 0xFF, 0xFC, 0x2F],
        [3] + [UInt8](repeating: 0xFF, count: 32),
        // The first byte is not a sign: the point at infinity, an uncompressed point, a hybrid point.
        [UInt8](repeating: 0, count: 33),
        [4] + [UInt8](repeating: 1, count: 32),
        [6] + [UInt8](repeating: 1, count: 32),
    ]

    @Test("refuses a key that is not a point of the curve", arguments: noPoints)
    func noPoint(_ key: [UInt8]) throws {
        let session = try Version1Session(isServer: true)
        #expect(throws: SecurityError.self) { try session.take(Version1Session.magic + [1] + key) }
        #expect(session.isEstablished == false)
    }

    @Test("refuses any other greeting at its first wrong byte")
    func otherGreetings() throws {
        for wrong in 0..<5 {
            let session = try Version1Session(isServer: true)
            var greeting = Version1Session.magic + [1]
            greeting[wrong] ^= 1
            if wrong > 0 { #expect(try session.take(Array(greeting[..<wrong])).answer == []) }
            #expect(throws: SecurityError.self) { try session.take([greeting[wrong]]) }
        }
    }
}
