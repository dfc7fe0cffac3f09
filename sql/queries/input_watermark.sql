-- name: InputWatermarkFind :many
SELECT
    input_watermark.source,
    input_watermark.at
FROM input_watermark
WHERE input_watermark.source = ANY(@sources::text[]);

-- name: InputWatermarkAdvance :exec
-- InputWatermarkAdvance moves watermarks forward, never back.
WITH given AS (
    SELECT
        unnest(@source::text[]) AS source,
        unnest(@at::timestamptz[]) AS at
)
INSERT INTO input_watermark AS watermark (source, at)
SELECT source, at
FROM given
ORDER BY source
ON CONFLICT (source) DO UPDATE
SET
    at = greatest(watermark.at, excluded.at),
    updated_at = CASE WHEN watermark.at < excluded.at THEN clock_timestamp() ELSE watermark.updated_at END;
