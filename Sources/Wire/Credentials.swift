/// What an agent shows of itself to log in, in the version of the protocol that it speaks.
///
/// Each version has its own tokens: one that is good for the one is never accepted for the other, as version 1 does
/// not keep a token secret.
package enum Credentials: Equatable, Sendable {
    case version2(Login)
    case version1(token: String)
}
