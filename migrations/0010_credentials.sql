-- Credentials for sites, each for one origin. What is secret in them is encrypted by the API for this row's id and origin alone.
CREATE TABLE credentials (
    -- Another one with every write: a sealed text never opens in a later row.
    id          uuid        NOT NULL UNIQUE,
    user_id     uuid        NOT NULL REFERENCES users ON DELETE CASCADE,
    name        text        NOT NULL,
    kind        text        NOT NULL CHECK (kind IN ('basic', 'bearer', 'header', 'formLogin')),
    origin      text        NOT NULL,
    -- Encrypted; before it stands which key it was: kid:base64.
    secret      text        NOT NULL,
    -- The resource version of the Kubernetes Secret that it was read from; NULL for what came by the API.
    secret_version text,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, name)
);
CREATE INDEX credentials_of_secrets ON credentials (user_id, name) WHERE secret_version IS NOT NULL;
