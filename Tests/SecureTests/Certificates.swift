/// Certificates for `gw.test` with fixed dates, all with the same key. `root` and `valid` are valid from 2000 to
/// 2200.
///
/// Made with python3-cryptography: P-256, SHA-256, a subject alternative name, and basic constraints for authorities.
enum Certificates {
    /// The key of all certificates except the authorities'.
    static let key = """
        -----BEGIN PRIVATE KEY-----
        MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg18WeTMDz0J/RaaTn
        /GNIbGHCtNcY9CFamy+dZTjsclKhRANCAAQtntyS1kNgm2Jhg1+pCwUgkx6Vekbn
        njqRTvDsavbrUszJe9kMA53aHt4pnpLgEOab/60tZsuqKymsR7IfAws9
        -----END PRIVATE KEY-----
        """

    static let root = """
        -----BEGIN CERTIFICATE-----
        MIIBNTCB26ADAgECAhQ6Gjk5T7z1PtnUrXZ9sYI0p8m7CzAKBggqhkjOPQQDAjAP
        MQ0wCwYDVQQDDARyb290MCAXDTAwMDEwMTAwMDAwMFoYDzIyMDAwMTAxMDAwMDAw
        WjAPMQ0wCwYDVQQDDARyb290MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEcaYY
        9dC9VnaPKIZm06z0MBWyAIiQtzHQMQsaq1EhKfTd91/ddKFXOcBxTfqY8BDfkMaS
        HAHqc7qzEEB32ReFmKMTMBEwDwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNJ
        ADBGAiEAmloNtHaXzfzlf3sSPWPeLYZgwP964C/g5hrHUTPZ+eICIQDzMsBM+Gl8
        QUniQhK5vPMxHy6N8Tf3QITL2VfW5PVOeg==
        -----END CERTIFICATE-----
        """

    /// Expired in 2010.
    static let oldRoot = """
        -----BEGIN CERTIFICATE-----
        MIIBOzCB4aADAgECAhQo5khu/RgL1QPfJH0O7Yx+ycX1rTAKBggqhkjOPQQDAjAT
        MREwDwYDVQQDDAhvbGQgcm9vdDAeFw0wMDAxMDEwMDAwMDBaFw0xMDAxMDEwMDAw
        MDBaMBMxETAPBgNVBAMMCG9sZCByb290MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcD
        QgAEc7pkv7OH/e5/AgPMsRPEd6j0jD3CkE+jpyZgD+WV7x4bDDNi2L5ycP8R5aD6
        Anw59MybfPRBL1hXcpLliXbo86MTMBEwDwYDVR0TAQH/BAUwAwEB/zAKBggqhkjO
        PQQDAgNJADBGAiEAsEjrnabq6NGpI4S7575aEJ4UvyFMNHuHTSRZAe0+/wACIQC2
        30FD37Tl1/BWogMNZl3T8jJBSUHt54yNlZLlbhY7XQ==
        -----END CERTIFICATE-----
        """

    static let valid = """
        -----BEGIN CERTIFICATE-----
        MIIBSDCB76ADAgECAhRY435foiUxN1AqdStSqUB76fJteTAKBggqhkjOPQQDAjAP
        MQ0wCwYDVQQDDARyb290MCAXDTAwMDEwMTAwMDAwMFoYDzIyMDAwMTAxMDAwMDAw
        WjASMRAwDgYDVQQDDAdndy50ZXN0MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE
        LZ7cktZDYJtiYYNfqQsFIJMelXpG5546kU7w7Gr261LMyXvZDAOd2h7eKZ6S4BDm
        m/+tLWbLqisprEeyHwMLPaMkMCIwDAYDVR0TAQH/BAIwADASBgNVHREECzAJggdn
        dy50ZXN0MAoGCCqGSM49BAMCA0gAMEUCIAlT9j3/Levjur9WECeVR6H4i5WLS0Jd
        ML6mlM4wCTCUAiEAsXLzXB9r0Gjx3dERa0kHV864RpkAdv6b4KSclFdG740=
        -----END CERTIFICATE-----
        """

    /// Issued by `root`, expired in 2010.
    static let expired = """
        -----BEGIN CERTIFICATE-----
        MIIBRjCB7aADAgECAhRmYuntFzAroRYRekrttYVwm+ltvDAKBggqhkjOPQQDAjAP
        MQ0wCwYDVQQDDARyb290MB4XDTAwMDEwMTAwMDAwMFoXDTEwMDEwMTAwMDAwMFow
        EjEQMA4GA1UEAwwHZ3cudGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABC2e
        3JLWQ2CbYmGDX6kLBSCTHpV6RueeOpFO8Oxq9utSzMl72QwDndoe3imekuAQ5pv/
        rS1my6orKaxHsh8DCz2jJDAiMAwGA1UdEwEB/wQCMAAwEgYDVR0RBAswCYIHZ3cu
        dGVzdDAKBggqhkjOPQQDAgNIADBFAiEAt+tB97ik7BUQ9QoVGRZTFV5zXn8/JIYm
        7bC2qm85iRsCIEFCKQGxJcNzH6FDnAIib5CjcEJiK2XNtxakZVxmIGtU
        -----END CERTIFICATE-----
        """

    /// Issued by `root`, valid from 2190 on.
    static let early = """
        -----BEGIN CERTIFICATE-----
        MIIBSjCB8aADAgECAhQYGiFWPfaA3nMF95JsmPz3J7OuCjAKBggqhkjOPQQDAjAP
        MQ0wCwYDVQQDDARyb290MCIYDzIxOTAwMTAxMDAwMDAwWhgPMjIwMDAxMDEwMDAw
        MDBaMBIxEDAOBgNVBAMMB2d3LnRlc3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
        AAQtntyS1kNgm2Jhg1+pCwUgkx6VekbnnjqRTvDsavbrUszJe9kMA53aHt4pnpLg
        EOab/60tZsuqKymsR7IfAws9oyQwIjAMBgNVHRMBAf8EAjAAMBIGA1UdEQQLMAmC
        B2d3LnRlc3QwCgYIKoZIzj0EAwIDSAAwRQIhANqlMDTTSM4yrXKcGMYopuZTQoeT
        BXUs3rAjAuEBRWKSAiA5vu35ijrD0mpFme7SC+kljsng9aDjvUcvCVmETgbU0w==
        -----END CERTIFICATE-----
        """

    /// Valid itself, but issued by an authority that has expired.
    static let byOldRoot = """
        -----BEGIN CERTIFICATE-----
        MIIBTDCB86ADAgECAhQZpl87w5/mhWrBQCHeEN0OXesC4TAKBggqhkjOPQQDAjAT
        MREwDwYDVQQDDAhvbGQgcm9vdDAgFw0wMDAxMDEwMDAwMDBaGA8yMjAwMDEwMTAw
        MDAwMFowEjEQMA4GA1UEAwwHZ3cudGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEH
        A0IABC2e3JLWQ2CbYmGDX6kLBSCTHpV6RueeOpFO8Oxq9utSzMl72QwDndoe3ime
        kuAQ5pv/rS1my6orKaxHsh8DCz2jJDAiMAwGA1UdEwEB/wQCMAAwEgYDVR0RBAsw
        CYIHZ3cudGVzdDAKBggqhkjOPQQDAgNIADBFAiBYmRcRxUcyWaUd485Ka7HoVCU4
        yz8E5RpGuTlhhdcrrAIhAMrSPHlP2o+Gdnr9YilVaFSwlwnhkIHWi8OFd7sIGS0R
        -----END CERTIFICATE-----
        """

    /// Expired in 2010. Names `root` as its issuer, but is signed with another key.
    static let forged = """
        -----BEGIN CERTIFICATE-----
        MIIBRjCB7aADAgECAhRvt7a5U3gXw5PsjX1sxcxZ9L68kjAKBggqhkjOPQQDAjAP
        MQ0wCwYDVQQDDARyb290MB4XDTAwMDEwMTAwMDAwMFoXDTEwMDEwMTAwMDAwMFow
        EjEQMA4GA1UEAwwHZ3cudGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABC2e
        3JLWQ2CbYmGDX6kLBSCTHpV6RueeOpFO8Oxq9utSzMl72QwDndoe3imekuAQ5pv/
        rS1my6orKaxHsh8DCz2jJDAiMAwGA1UdEwEB/wQCMAAwEgYDVR0RBAswCYIHZ3cu
        dGVzdDAKBggqhkjOPQQDAgNIADBFAiB5goncFjDyvnix1a1F3wAYnyRAFbW0mNOh
        5Wrqrrk6zQIhALhgqcS+G3bC5lkR6Tagk8RMxAQQ4PkA0uEeskulcXw2
        -----END CERTIFICATE-----
        """

    /// Names `oldRoot` as its issuer, but is signed with another key.
    static let forgedByOldRoot = """
        -----BEGIN CERTIFICATE-----
        MIIBTDCB86ADAgECAhRR9VCFVYyLSQS8WEJxezf82nbuxzAKBggqhkjOPQQDAjAT
        MREwDwYDVQQDDAhvbGQgcm9vdDAgFw0wMDAxMDEwMDAwMDBaGA8yMjAwMDEwMTAw
        MDAwMFowEjEQMA4GA1UEAwwHZ3cudGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEH
        A0IABC2e3JLWQ2CbYmGDX6kLBSCTHpV6RueeOpFO8Oxq9utSzMl72QwDndoe3ime
        kuAQ5pv/rS1my6orKaxHsh8DCz2jJDAiMAwGA1UdEwEB/wQCMAAwEgYDVR0RBAsw
        CYIHZ3cudGVzdDAKBggqhkjOPQQDAgNIADBFAiAfDHlTf0AXS4aakqX/Rm6Qwb2C
        FOVqQcHl3uITytxkFgIhAPFsI7IfEeIQ1hRwcroMXHFWBTiLKeTF0OtMnht3AU1y
        -----END CERTIFICATE-----
        """
}
