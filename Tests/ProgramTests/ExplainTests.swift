import Explain
import Gateway
import Testing

@Suite("Explanations of the gateway")
struct GatewayExplainTests {
    @Test("there is one for each exit code, and none besides but that of success")
    func complete() {
        let numbers = Explanations.all.filter { $0.kind == .gatewayExit }.map(\.number)
        #expect(numbers == [0] + GatewayError.Kind.allCases.map { Int($0.rawValue) }.sorted())
    }
}
