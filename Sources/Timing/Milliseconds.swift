/// Points in time and spans: milliseconds of a clock that never goes back. Whoever drives a machine supplies them.
package typealias Milliseconds = UInt64
