// swift-tools-version: 6.2
import PackageDescription

// `Lifetimes` lets our types return a `RawSpan` that borrows from them. swift-collections, swift-system and swift-nio
// enable it for the same reason.
let strict: [SwiftSetting] = [
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableExperimentalFeature("Lifetimes"),
    .treatAllWarnings(as: .error),
]

/// A pure module: no sockets, clock, randomness, logging or Foundation. `scripts/tidy` enforces this.
func pure(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
    .target(name: name, dependencies: dependencies, swiftSettings: strict)
}

/// A module with access to the outside world.
func driver(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
    .target(name: name, dependencies: dependencies, swiftSettings: strict)
}

func tests(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .testTarget(name: name, dependencies: dependencies, swiftSettings: strict)
}

let logging = Target.Dependency.product(name: "Logging", package: "swift-log")
let arguments = Target.Dependency.product(name: "ArgumentParser", package: "swift-argument-parser")

/// Fuzz targets need libFuzzer's runtime, so only `scripts/fuzz` builds them.
let fuzzing: [Target] =
    Context.environment["DIGLETT_FUZZ"] == nil
    ? []
    : [
        .executableTarget(
            name: "diglett-fuzz",
            dependencies: [
                "Bytes", "Control", "Modules", "ProxyProtocol", "Settings", "Timing", "Tunnel", "Version1", "Web",
                "Wire",
            ],
            path: "Tests/Fuzz", exclude: ["Corpora"], swiftSettings: strict)
    ]

let package = Package(
    name: "diglett",
    products: [
        .executable(name: "diglett-server", targets: ["diglett-server"]),
        .executable(name: "diglett", targets: ["diglett"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
    ],
    targets: [
        .systemLibrary(name: "CUV", path: "Shims/CUV", pkgConfig: "libuv", providers: [.apt(["libuv1-dev"])]),
        .systemLibrary(
            name: "COpenSSL", path: "Shims/COpenSSL", pkgConfig: "openssl", providers: [.apt(["libssl-dev"])]),
        .systemLibrary(
            name: "CCurl", path: "Shims/CCurl", pkgConfig: "libcurl", providers: [.apt(["libcurl4-openssl-dev"])]),
        .systemLibrary(name: "CNotify", path: "Shims/CNotify"),

        // Header-only C++: needs Debian's libtomlplusplus-dev.
        .target(name: "CTOML", path: "Shims/CTOML"),

        pure("Bytes"),
        pure("Wire", ["Bytes"]),
        pure("Suggestions"),
        pure("Timing"),
        pure("Metrics"),
        pure("Tunnel", ["Bytes", "Timing", "Wire"]),
        pure("Version1", ["Bytes", "Timing", "Tunnel", "Wire"]),
        pure("GatewayCore", ["Timing", "Wire"]),
        pure("AgentCore", ["Timing", "Wire"]),
        pure("Explain", ["AgentCore", "Suggestions", "Wire"]),
        pure("ProxyProtocol", ["Wire"]),

        driver("Reactor", ["CUV", "Bytes"]),
        driver("Secure", ["COpenSSL", "Bytes"]),
        driver("Web", ["CCurl", "Reactor"]),
        driver("Supervision", ["CNotify", "Reactor", logging]),
        driver(
            "Relay", ["Bytes", "Metrics", "ProxyProtocol", "Reactor", "Secure", "Timing", "Tunnel", "Version1", "Wire"]),
        driver("Console", ["Journal", "Settings", "Suggestions", arguments, logging]),
        driver("Control", ["Reactor", "Wire"]),
        driver("Settings", ["CTOML", "ProxyProtocol", "Suggestions", "Wire"]),
        driver("Journal", ["Reactor", "Settings", "Timing", logging]),
        driver("Records", ["Journal", "Reactor", "Relay", "Wire", logging]),
        driver(
            "Modules", ["Journal", "Metrics", "Reactor", "Secure", "Settings", "Timing", "Web", "Wire", logging]),
        driver(
            "Gateway",
            [
                "Control", "GatewayCore", "Journal", "Metrics", "Modules", "ProxyProtocol", "Reactor", "Records",
                "Relay",
                "Secure", "Settings", "Supervision", "Timing", "Tunnel", "Web", "Wire", logging,
            ]),
        driver(
            "Agent",
            [
                "AgentCore", "Control", "Journal", "ProxyProtocol", "Reactor", "Records", "Relay", "Secure", "Settings",
                "Supervision", "Timing", "Tunnel", "Wire", logging,
            ]),

        driver("Administration", ["Gateway", "Reactor", "Secure", "Settings", "Wire"]),

        .executableTarget(
            name: "diglett-server",
            dependencies: [
                "Administration", "Console", "Control", "Explain", "Gateway", "Journal", "Settings", "Supervision",
                "Wire", arguments,
                logging,
            ],
            swiftSettings: strict),
        .executableTarget(
            name: "diglett",
            dependencies: [
                "Agent", "AgentCore", "Console", "Control", "Explain", "Journal", "Settings", "Supervision", "Wire",
                arguments, logging,
            ],
            swiftSettings: strict),

        .target(
            name: "TestSupport", dependencies: ["Reactor", "Relay", "Secure", "Tunnel", "Wire", logging],
            path: "Tests/Support", swiftSettings: strict),
        tests("WireTests", ["Bytes", "Wire"]),
        tests("TunnelTests", ["Bytes", "TestSupport", "Tunnel", "Wire"]),
        tests("Version1Tests", ["Bytes", "Tunnel", "Version1", "Wire"]),
        tests("MetricsTests", ["Metrics"]),
        tests("CoreTests", ["AgentCore", "Explain", "Suggestions", "Timing", "Wire"]),
        tests("GatewayCoreTests", ["GatewayCore", "Timing", "Wire"]),
        tests(
            "GatewayTests",
            [
                "Control", "Gateway", "GatewayCore", "Journal", "Metrics", "Modules", "Reactor", "Relay", "Secure",
                "Settings", "Supervision", "TestSupport", "Timing", "Tunnel", "Wire", logging,
            ]),
        tests("ProxyProtocolTests", ["ProxyProtocol", "Wire"]),
        tests(
            "AgentTests",
            [
                "Agent", "AgentCore", "Reactor", "Relay", "Secure", "Settings", "TestSupport", "Tunnel", "Wire",
                logging,
            ]),
        tests("RelayTests", ["ProxyProtocol", "Reactor", "Relay", "Secure", "TestSupport", "Tunnel", "Wire"]),
        tests("ControlTests", ["Control", "Reactor"]),
        tests("ReactorTests", ["Bytes", "Reactor"]),
        tests("JournalTests", ["Journal", "Reactor", "Records", "Relay", "Settings", "Wire", logging]),
        .testTarget(
            name: "WebTests", dependencies: ["Reactor", "TestSupport", "Web"], exclude: ["server.py"],
            swiftSettings: strict),
        tests("SupervisionTests", ["Reactor", "Supervision", logging]),
        tests("SecureTests", ["Bytes", "Secure"]),
        tests(
            "ModuleTests",
            [
                "Journal", "Metrics", "Modules", "Reactor", "Settings", "TestSupport", "Timing", "Web", "Wire", logging,
            ]),
        tests("SettingsTests", ["ProxyProtocol", "Settings", "TestSupport", "Wire"]),
        tests(
            "ProgramTests",
            [
                "Agent", "AgentCore", "Console", "Explain", "Gateway", "GatewayCore", "Journal", "Metrics", "Modules",
                "ProxyProtocol", "Reactor", "Relay", "Secure", "Settings", "Supervision", "TestSupport", "Tunnel",
                "Version1", "Web", "Wire", arguments, logging,
            ]),
    ] + fuzzing,
    swiftLanguageModes: [.v6],
    cxxLanguageStandard: .cxx17
)
