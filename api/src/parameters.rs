//! Optional parameters of requests, as the OpenAPI document describes them.

use utoipa::openapi::Required;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};

/// Describes an optional parameter that is a text; `bounds` limits the text.
pub fn optional_text(
    name: &str,
    place: ParameterIn,
    description: &str,
    bounds: impl FnOnce(ObjectBuilder) -> ObjectBuilder,
) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(Required::False)
        .description(Some(description))
        .schema(Some(bounds(ObjectBuilder::new().schema_type(Type::String))))
        .build()
}
