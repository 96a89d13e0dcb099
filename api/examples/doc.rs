fn main() {
    println!("{}", inferq_api::openapi::document().to_pretty_json().unwrap());
}
