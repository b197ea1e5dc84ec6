-- renew_membership --
INSERT INTO living (owner, expires_at) VALUES (:owner, :expires_at)
ON CONFLICT (owner) DO UPDATE SET expires_at = excluded.expires_at;

-- forget_dead --
DELETE FROM living WHERE expires_at <= :now;

-- leave --
DELETE FROM living WHERE owner = :owner;

-- list_members --
SELECT owner FROM living WHERE expires_at > :now ORDER BY owner;
