import Foundation

/// Runs `body` with a new directory, and removes it afterwards.
func withDirectory<R>(_ body: (String) throws -> R) throws -> R {
    let path = FileManager.default.temporaryDirectory.appendingPathComponent("diglett-\(UUID().uuidString)").path
    // Independent of the umask, because state directories that a group can write to are refused.
    try FileManager.default.createDirectory(
        atPath: path, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o755])
    defer { try? FileManager.default.removeItem(atPath: path) }
    return try body(path)
}

/// The description of the error that `body` throws; empty if it throws none.
func message<R>(_ body: () throws -> R) -> String {
    do {
        _ = try body()
        return ""
    } catch { return "\(error)" }
}

func write(_ text: String, _ path: String, mode: Int = 0o600) throws {
    try text.write(toFile: path, atomically: true, encoding: .utf8)
    try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: path)
}
