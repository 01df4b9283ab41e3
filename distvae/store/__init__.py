"""Where OUT may lie: a folder (also a shared one), or `s3://bucket/prefix`. The rest of distvae writes through
`distvae.files` and reads through path objects; what is particular to a place is here.

    errors   what goes wrong, in words a user can act on
    local    writing inside a folder without following a link out of it
    s3       the client; every call's errors translated
    path     `S3Path`, the part of pathlib's interface that distvae uses
    appended logs on S3, which has no append
    lease    one owner of an OUT where the file system has no locks"""
